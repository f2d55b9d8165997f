// The kernels of cuda/inputs.cu, run on the host, against load_inputs of cpu/layer.cpp, over memory full of other
// numbers.
#include "cuda/inputs.cu"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/layer.h"

namespace {

using igb::Size;

constexpr double poison = -12345.0;

template <class T>
igb::InputsView view(const std::vector<T>& inputs, Size count) {
    igb::InputsView result;
    result.count = count;
    if constexpr (std::is_same_v<T, float>) {
        result.f32 = inputs.data();
    } else {
        result.f64 = inputs.data();
    }
    return result;
}

// Compares with the tile (columns, features) that the CPU makes for network g of the batch.
template <class T, class Reference>
void check_tiles(const igb::cuda::InputBatch& batch, const std::vector<T>& out, T tolerance, Reference&& reference) {
    std::vector<T> want(static_cast<std::size_t>(batch.columns * batch.features));
    bool all = true;
    for (Size g = 0; g < batch.networks; ++g) {
        reference(g, want.data());
        for (Size a = 0; a < batch.columns; ++a) {
            for (Size i = 0; i < batch.ld; ++i) {
                const T got = out[static_cast<std::size_t>((g * batch.columns + a) * batch.ld + i)];
                const T here = i < batch.features ? want[static_cast<std::size_t>(a * batch.features + i)] : T{0};
                all = all && std::abs(got - here) <= tolerance;
            }
        }
    }
    CHECK(all);
    CHECK(out.back() == static_cast<T>(poison));
}

template <class T>
std::vector<T> poisoned(const igb::cuda::InputBatch& batch) {
    return std::vector<T>(static_cast<std::size_t>(batch.networks * batch.columns * batch.ld + 1),
                          static_cast<T>(poison));
}

// Inputs in memory, the piece of them from `begin` on; the origin is far away, as where all inputs have one mean.
template <class Source, class T>
void check_given(const igb::cuda::InputBatch& batch, Size begin) {
    std::mt19937_64 random(17);
    std::normal_distribution<double> normal(100.0);
    const Size count = begin + batch.columns, features = batch.features;
    std::vector<Source> given(static_cast<std::size_t>(count * features));
    std::vector<double> origin(static_cast<std::size_t>(features));
    for (Source& x : given) x = static_cast<Source>(normal(random));
    for (double& x : origin) x = static_cast<double>(static_cast<Source>(normal(random)));
    std::vector<T> out = poisoned<T>(batch);
    igb::cuda::load_inputs(nullptr, given.data() + begin * features, origin.data(), batch, out.data());
    igb::ForwardRequest request;
    request.features = features;
    check_tiles(batch, out, T{0}, [&](Size, T* want) {
        igb::load_inputs(request, view(given, count), 0, {begin, batch.columns}, 0, origin.data(), 0, features, want,
                         features);
    });
}

template <class T>
void check_gaussian(const igb::cuda::InputBatch& batch, Size first) {
    igb::ForwardRequest request;
    request.features = batch.features;
    request.seed = 0xFEDCBA9876543210u;
    const std::uint32_t network = 41;
    std::vector<T> out = poisoned<T>(batch);
    igb::cuda::gaussian_inputs(nullptr, igb::stream_of(request, network, 0, igb::Stream::inputs), first, batch,
                               out.data());
    const T tolerance = 16 * std::numeric_limits<T>::epsilon();  // of numbers up to 8
    check_tiles(batch, out, tolerance, [&](Size g, T* want) {
        igb::load_inputs(request, igb::InputsView{}, network + static_cast<std::uint32_t>(g), {0, batch.columns}, first,
                         nullptr, 0, batch.features, want, batch.features);
    });
}

// One block of threads, which has to come back for every column and network, does what any grid does.
template <class T>
void check_small_grid() {
    const igb::cuda::InputBatch batch{3, 9, 60, 64};
    const igb::StreamId id{7, 41, 0, static_cast<std::uint32_t>(igb::Stream::inputs)};
    std::vector<T> want = poisoned<T>(batch), got = want;
    igb::cuda::gaussian_inputs(nullptr, id, 1, batch, want.data());
    igb::cuda::launch(nullptr, {1}, {64, 2}, igb::cuda::gaussian_kernel<T>, id, std::int64_t{1}, batch, got.data());
    CHECK(got == want);
    const std::vector<T> given(8 * 60, T{3});
    const std::vector<double> origin(60, 0.5);
    igb::cuda::load_inputs(nullptr, given.data(), origin.data(), batch, want.data());
    igb::cuda::launch(nullptr, {1}, {64, 2}, igb::cuda::load_kernel<T, T>, given.data(), origin.data(), batch,
                      got.data());
    CHECK(got == want);
}

template <class T>
void check_all() {
    check_small_grid<T>();
    check_given<float, T>({1, 4, 70, 70}, 0);
    check_given<double, T>({2, 37, 97, 128}, 3);
    check_given<float, T>({3, 1, 301, 320}, 0);
    check_gaussian<T>({1, 4, 70, 70}, 1);
    check_gaussian<T>({3, 37, 97, 128}, 1000);
    check_gaussian<T>({1, 2, 301, 333}, 0xFFFFFFFF);
}

}  // namespace

int main() {
    check_all<float>();
    check_all<double>();
    return summary();
}
