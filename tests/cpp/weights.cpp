// Uniform and Rademacher weights: their definition by Philox words, spelt out again; every instruction set against the
// one-element definition, to the last bit; then their law. Seeds are fixed, so the statistical checks (5 standard
// errors) pass or fail for good.
#include "core/weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"

namespace {

using igb::PhiloxWords;
using igb::StreamId;
using igb::WeightLaw;

constexpr double errors = 5.0;  // allowed, in standard errors
constexpr WeightLaw laws[] = {WeightLaw::gaussian, WeightLaw::uniform, WeightLaw::rademacher};
constexpr std::int64_t rademacher_block = 2048;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr std::int64_t scale = 16;  // fewer numbers where each takes long
#else
constexpr std::int64_t scale = 1;
#endif

template <class T>
std::vector<T> draw(WeightLaw law, const StreamId& id, std::uint32_t row, std::int64_t begin, std::int64_t count) {
    std::vector<T> out(static_cast<std::size_t>(count));
    igb::fill_weights(law, id, row, begin, count, out.data());
    return out;
}

// ---- Definition -----------------------------------------------------------------------------------------------------

std::vector<std::uint32_t> words_of(const StreamId& id, std::uint32_t row, std::uint64_t c0) {
    const PhiloxWords w =
        igb::philox4x32({static_cast<std::uint32_t>(c0), row, id.layer + (id.stream << 24), id.network},
                        {static_cast<std::uint32_t>(id.seed & 0xFFFFFFFFu), static_cast<std::uint32_t>(id.seed >> 32)});
    return {w.x0, w.x1, w.x2, w.x3};
}

// The leading bits of a word, or of two, as a signed fraction of their range: its middle is taken, in [-1, 1].
long double uniform_by_definition(bool single, const StreamId& id, std::uint32_t row, std::uint64_t column) {
    const std::uint64_t block = single ? 64 : 32, b = column / block, k = column % block / 16, j = column % 16;
    const std::vector<std::uint32_t> w = words_of(id, row, 16 * b + j);
    const long double root = std::sqrt(3.0L);
    if (single) {
        const std::int64_t s = std::int64_t{w[k] / 256} - (w[k] >= 0x80000000u ? 0x1000000 : 0);
        return root * (static_cast<long double>(s) + 0.5L) / 0x1p23L;
    }
    const std::uint64_t x = (std::uint64_t{w[2 * k]} << 32) + w[2 * k + 1];
    return root * ((static_cast<long double>(x / 4096) + 0.5L) / 0x1p51L - 1.0L);
}

int sign_by_definition(const StreamId& id, std::uint32_t row, std::uint64_t column) {
    const std::uint64_t b = column / 2048, word = column % 2048 / 512, k = column % 512 / 16, j = column % 16;
    const std::uint32_t power = 0x80000000u >> k;
    return words_of(id, row, 16 * b + j)[word] / power % 2 == 1 ? -1 : 1;
}

template <class T>
void check_definition() {
    const StreamId ids[] = {{0, 0, 0, 0}, {0xFEDCBA9876543210u, 7, 0xFFFFFF, 3}};
    const std::uint64_t last = igb::NormalLayout<T>::columns - 1;
    double worst = 0.0;
    int wrong = 0;
    for (const StreamId& id : ids) {
        for (const std::uint32_t row : {0u, 0x80000000u}) {
            for (std::uint64_t i = 0; i < 5000; i += 7) {
                for (const std::uint64_t column : {i, last - i}) {
                    const T uniform = igb::weight_at<T>(WeightLaw::uniform, id, row, column);
                    const long double reference = uniform_by_definition(sizeof(T) == 4, id, row, column);
                    worst = std::max(worst, static_cast<double>(std::abs(uniform - reference) / std::abs(reference)));
                    const T sign = igb::weight_at<T>(WeightLaw::rademacher, id, row, column);
                    wrong += sign != static_cast<T>(sign_by_definition(id, row, column));
                    const T normal = igb::weight_at<T>(WeightLaw::gaussian, id, row, column);
                    wrong += normal != igb::normal_at<T>(id, row, column);
                }
            }
        }
    }
    CHECK_CLOSE(worst, 0.0, 1.5 * static_cast<double>(std::numeric_limits<T>::epsilon()));
    CHECK(wrong == 0);
}

// The map from words to uniform weights is odd about the middle of the words, and stays below sqrt(3) at both ends.
template <class Word>
void check_symmetry() {
    const Word middle = Word{1} << (8 * sizeof(Word) - 1);
    bool odd = true;
    for (Word x = 3; x < middle; x = static_cast<Word>(x * 5 + 1)) {
        for (const Word at : {x, static_cast<Word>(middle - x), static_cast<Word>(x >> 13)}) {
            odd = odd && igb::uniform_weight(at) == -igb::uniform_weight(static_cast<Word>(~at));
        }
        if (x > middle / 8) break;
    }
    CHECK(odd);
    for (const Word x : {Word{0}, static_cast<Word>(middle - 1), middle, static_cast<Word>(~Word{0})}) {
        CHECK(std::abs(static_cast<long double>(igb::uniform_weight(x))) < std::sqrt(3.0L));
        CHECK(igb::uniform_weight(x) != 0);
    }
}

// The arrays of the instruction set in use: the definition to the last bit (normals: up to rounding, and to the last
// bit what fill_normals gives), however a row is cut, and nothing beyond its end.
template <class T>
void check_arrays(WeightLaw law) {
    const StreamId id{0x0123456789ABCDEFu, 3, 5, 0};
    constexpr std::int64_t columns = 2 * rademacher_block + 1000;
    const std::vector<T> row = draw<T>(law, id, 9, 0, columns);
    std::vector<T> expected(row.size());
    if (law == WeightLaw::gaussian) {
        igb::fill_normals(id, 9, 0, columns, expected.data());
    } else {
        for (std::size_t i = 0; i < row.size(); ++i) expected[i] = igb::weight_at<T>(law, id, 9, i);
    }
    CHECK(std::memcmp(row.data(), expected.data(), row.size() * sizeof(T)) == 0);

    bool same = true, kept = true;
    for (const std::int64_t begin : {0, 64, 448, 1984, 2048, 2112}) {
        for (const std::int64_t count : {0, 1, 15, 16, 17, 63, 64, 65, 130, 511, 512, 600, 2047, 2048, 2049, 2500}) {
            std::vector<T> part(static_cast<std::size_t>(count + 1), T{77});
            igb::fill_weights(law, id, 9, begin, count, part.data());
            same =
                same && std::memcmp(part.data(), row.data() + begin, static_cast<std::size_t>(count) * sizeof(T)) == 0;
            kept = kept && part.back() == T{77};
        }
    }
    CHECK(same);
    CHECK(kept);
    const std::int64_t far = static_cast<std::int64_t>(igb::NormalLayout<T>::columns) - 64;
    const T end = igb::weight_at<T>(law, id, 9, static_cast<std::uint64_t>(far) + 63);
    CHECK_CLOSE(draw<T>(law, id, 9, far, 64)[63], end, law == WeightLaw::gaussian ? 1e-6 : 0.0);
}

void check_signs_of_both_precisions() {
    const std::vector<float> single = draw<float>(WeightLaw::rademacher, {4, 3, 2, 0}, 1, 0, 5000);
    const std::vector<double> twice = draw<double>(WeightLaw::rademacher, {4, 3, 2, 0}, 1, 0, 5000);
    CHECK(std::equal(single.begin(), single.end(), twice.begin()));
}

// ---- Law ------------------------------------------------------------------------------------------------------------

// E[x^k] of an even k <= 8; that of an odd one is 0.
double moment(WeightLaw law, int k) {
    constexpr double normal[] = {1.0, 1.0, 3.0, 15.0, 105.0};
    if (law == WeightLaw::gaussian) return normal[k / 2];
    return law == WeightLaw::uniform ? std::pow(3.0, k / 2) / (k + 1) : 1.0;
}

template <class T>
void check_moments(WeightLaw law) {
    constexpr std::int64_t columns = 4096, rows = 1024 / scale;
    double sum[5] = {};
    for (std::uint32_t row = 0; row < rows; ++row) {
        for (const T value : draw<T>(law, {2024, 0, 1, 0}, row, 0, columns)) {
            const double x = static_cast<double>(value);
            double power = 1.0;
            for (int k = 1; k <= 4; ++k) sum[k] += power *= x;
        }
    }
    const double n = static_cast<double>(columns * rows);
    for (int k = 1; k <= 4; ++k) {
        const double mean = k % 2 == 0 ? moment(law, k) : 0.0, variance = moment(law, 2 * k) - mean * mean;
        CHECK_CLOSE(sum[k] / n, mean, errors * std::sqrt(variance / n));  // 0 for the even powers of signs
    }
}

// sqrt(n) D exceeds 2.5 once in 130,000 times.
template <class T>
void check_uniformity() {
    std::vector<T> x = draw<T>(WeightLaw::uniform, {99, 1, 2, 0}, 4, 0, (1 << 20) / scale);
    std::sort(x.begin(), x.end());
    const double n = static_cast<double>(x.size());
    double distance = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double below = 0.5 + static_cast<double>(x[i]) / std::sqrt(12.0);
        distance = std::max({distance, below - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - below});
    }
    CHECK_CLOSE(std::sqrt(n) * distance, 0.0, 2.5);
}

// Each bit of each lane on its own: sums over blocks and rows. The largest of 2048 normal numbers exceeds 5 once in 850
// times.
void check_bits() {
    constexpr std::uint32_t rows = 4096 / scale;
    std::vector<double> sum(rademacher_block, 0.0);
    for (std::uint32_t row = 0; row < rows; ++row) {
        const std::vector<double> x = draw<double>(WeightLaw::rademacher, {7, 0, 1, 0}, row, 0, rademacher_block);
        for (std::size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
    }
    double worst = 0.0, squares = 0.0;
    for (const double s : sum) {
        worst = std::max(worst, std::abs(s));
        squares += s * s / rows;
    }
    CHECK_CLOSE(worst / std::sqrt(double{rows}), 0.0, errors);
    const double n = static_cast<double>(sum.size());
    CHECK_CLOSE(squares / n, 1.0, errors * std::sqrt(2.0 / n));
}

// Correlations of values, and of squares where these vary, between what lies shift apart.
template <class T>
void check_uncorrelated(WeightLaw law, const std::vector<T>& a, const std::vector<T>& b, std::size_t shift) {
    double product = 0.0, squares = 0.0;
    const std::size_t n = a.size() - shift;
    for (std::size_t i = 0; i < n; ++i) {
        const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i + shift]);
        product += x * y;
        squares += (x * x - 1.0) * (y * y - 1.0);
    }
    const double root = std::sqrt(static_cast<double>(n));
    CHECK_CLOSE(product / root, 0.0, errors);  // variance 1 a term
    CHECK_CLOSE(squares / root, 0.0, errors * (moment(law, 4) - 1.0));
}

template <class T>
void check_independence(WeightLaw law) {
    constexpr std::int64_t n = (1 << 20) / scale;
    const StreamId id{5, 6, 7, 0};
    const std::vector<T> x = draw<T>(law, id, 8, 0, n);
    for (const std::size_t shift : {1u, 2u, 3u, 8u, 15u, 16u, 17u, 32u, 48u, 64u, 256u, 512u, 1024u, 2048u, 4096u}) {
        check_uncorrelated(law, x, x, shift);
    }
    check_uncorrelated(law, x, draw<T>(law, id, 9, 0, n), 0);
    check_uncorrelated(law, x, draw<T>(law, {5, 7, 7, 0}, 8, 0, n), 0);  // network
    check_uncorrelated(law, x, draw<T>(law, {5, 6, 8, 0}, 8, 0, n), 0);  // layer
    check_uncorrelated(law, x, draw<T>(law, {6, 6, 7, 0}, 8, 0, n), 0);  // seed

    double triple = 0.0;  // pairwise independent signs could still multiply to a constant
    for (std::size_t i = 0; i + 17 < x.size(); ++i) triple += static_cast<double>(x[i] * x[i + 1] * x[i + 17]);
    CHECK_CLOSE(triple / std::sqrt(static_cast<double>(n)), 0.0, errors);
}

template <class T>
void check_all() {
    check_definition<T>();
    int sets = 0;
    const char* const* names = igb::available_isas(&sets);
    for (int i = 0; i < sets; ++i) {
        CHECK(igb::select_isa(names[i]));
        for (const WeightLaw law : laws) check_arrays<T>(law);
    }
    for (const WeightLaw law : laws) {
        check_moments<T>(law);
        check_independence<T>(law);
    }
    check_uniformity<T>();
}

}  // namespace

int main() {
    check_all<float>();
    check_all<double>();
    check_symmetry<std::uint32_t>();
    check_symmetry<std::uint64_t>();
    check_signs_of_both_precisions();
    check_bits();
    return summary();
}
