// The kernels of cuda/covariance_map.cu, run on the host, against those of cpu/covariance_rows.cpp pair by pair, and
// curves against the functions that they were made of: inputs of different norms, the same, opposite, and as near as
// 1e-12, at numbers that fill no tile. What is no pair is nan before and after.
#include "cuda/covariance_map.cu"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/adaptive_curve.h"
#include "cpu/aligned.h"
#include "cpu/covariance_rows.h"
#include "cpu/kernels.h"

namespace {

using igb::at;
using igb::pair_block;
using igb::PairRows;
using igb::PairSink;
using igb::Size;
using igb::cuda::PairMatrices;
using Numbers = std::vector<double>;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr Size features = 37;

const igb::CovarianceKernels& twins() { return *igb::kernels().covariance; }

// Inputs x, some of them nearly or exactly one, and the arrays of their view. `carried`: by how much the variances of
// the layer differ from those of x.
struct Inputs {
    Size count, padded;
    Numbers x, q, root_change, inverse_root, seen, seen_change;

    Inputs(Size n, bool layernorm, double carried = 1.0)
        : count(n), padded((n + pair_block - 1) / pair_block * pair_block), x(at(n * features)) {
        std::mt19937_64 random(static_cast<unsigned long>(n));
        std::normal_distribution<double> normal;
        for (Size a = 0; a < n; ++a) {
            const double norm = std::exp(0.5 * normal(random));
            for (Size k = 0; k < features; ++k) {
                const double fresh = normal(random), *const first = x.data();
                x[at(a * features + k)] = a % 7 == 1   ? first[k]
                                          : a % 7 == 2 ? first[k] + 1e-12 * fresh
                                          : a % 7 == 3 ? -first[k] + 1e-7 * fresh
                                                       : norm * fresh;
            }
        }
        const auto change = [&](Size a) {
            long double sum = 0.0L;
            for (Size k = 0; k < features; ++k) {
                const long double y = x[at(a * features + k)], centre = x[at(k)];
                sum += (y - centre) * (y + centre);
            }
            return static_cast<double>(carried * sum / features);
        };
        long double reference = 0.0L;
        for (Size k = 0; k < features; ++k) reference += static_cast<long double>(x[at(k)]) * x[at(k)];
        const double q_reference = static_cast<double>(carried * reference / features);
        for (Size a = 0; a < padded; ++a) {
            const double difference = a < n ? change(a) : 0.0;
            q.push_back(q_reference + difference);
            const double root = std::sqrt(q.back());
            root_change.push_back(difference / (root + std::sqrt(q_reference)));
            inverse_root.push_back(1.0 / root);
            seen.push_back(layernorm ? 1.0 : root);
            seen_change.push_back(layernorm ? 0.0 : root_change.back());
        }
    }

    igb::InputView view() const {
        return {count, padded, q.data(), root_change.data(), inverse_root.data(), seen.data(), seen_change.data()};
    }
};

// The four matrices of both, K and T from the inputs.
struct Pairs {
    const Inputs& inputs;
    Numbers gpu[4], parts, cpu[4];
    igb::PairSums sums;
    double steep = 0.0;

    explicit Pairs(const Inputs& of) : inputs(of) {
        for (Numbers& matrix : gpu) matrix.assign(at(of.count * of.count + 1), nan);
        for (Numbers& matrix : cpu) matrix.assign(at(of.padded * of.padded), 0.0);
        parts.assign(at(4 * igb::cuda::pair_blocks(of.count) + 1), nan);
        igb::cuda::compare_inputs(nullptr, of.x.data(), features, 1.0 / features, matrices());
        for_blocks([&](const PairRows& rows, PairSink&) {
            twins().compare_inputs(of.x.data(), of.count, features, rows, of.padded);
            for (Size i = 0; i < pair_block * (of.padded - rows.first); ++i) {
                rows.covariance[i] /= features;
                rows.distance[i] /= features;
            }
        });
        for_pairs([&](Size there, Size here) {
            CHECK_CLOSE(gpu[0][at(there)], cpu[0][at(here)], 1e-14 * std::abs(gpu[1][at(there)]) + 1e-14);
            CHECK_CLOSE(gpu[1][at(there)], cpu[1][at(here)], 1e-14 * cpu[1][at(here)]);
            gpu[0][at(there)] = cpu[0][at(here)];  // from here on, the same
            gpu[1][at(there)] = cpu[1][at(here)];
            gpu[2][at(there)] = gpu[3][at(there)] = 0.0;
        });
        for (Size b = 0; b < blocks(); ++b) parts[at(PairMatrices::steep * blocks() + b)] = 0.0;
    }

    Size blocks() const { return igb::cuda::pair_blocks(inputs.count); }
    PairMatrices matrices() {
        return {inputs.count, gpu[0].data(), gpu[1].data(), gpu[2].data(), gpu[3].data(), parts.data()};
    }

    // body(rows, sink) for the blocks of rows of the CPU.
    template <class Body>
    void for_blocks(const Body& body) {
        for (Size first = 0; first < inputs.padded; first += pair_block) {
            const Size offset = first * inputs.padded;
            PairSink sink{cpu[2].data() + offset, cpu[3].data() + offset};
            body({first, cpu[0].data() + offset, cpu[1].data() + offset}, sink);
            steep += sink.steep;
        }
    }

    // body(number in the GPU's matrices, in the CPU's) for all pairs.
    template <class Body>
    void for_pairs(const Body& body) {
        for (Size a = 0; a < inputs.count; ++a) {
            const Size first = a / pair_block * pair_block, columns = inputs.padded - first;
            for (Size b = a + 1; b < inputs.count; ++b)
                body(a * inputs.count + b, first * inputs.padded + (a - first) * columns + b - first);
        }
    }

    double total(PairMatrices::Part part) const {
        double sum = 0.0;
        for (Size b = 0; b < blocks(); ++b) sum += parts[at(part * blocks() + b)];
        return sum;
    }

    // Of matrices first and second, relative to what they hold; and nothing beside the pairs.
    void same(int first, int second, double size) {
        for_pairs([&](Size there, Size here) {
            const double k = cpu[first][at(here)], d = cpu[second][at(here)];
            CHECK_CLOSE(gpu[first][at(there)], k, 1e-13 * (std::abs(k) + size));
            CHECK_CLOSE(gpu[second][at(there)], d, 1e-13 * std::abs(d));
        });
        for (const Numbers& matrix : gpu) {
            for (Size a = 0; a < inputs.count; ++a)
                for (Size b = 0; b <= a; ++b) CHECK(std::isnan(matrix[at(a * inputs.count + b)]));
            CHECK(std::isnan(matrix.back()));
        }
        CHECK(std::isnan(parts.back()));
    }

    void same_terms() {
        same(2, 3, 1.0);
        CHECK_CLOSE(total(PairMatrices::steep), steep, 1e-12 * steep);
    }
};

// Numbers for each input, [block][number][lane], alike for inputs alike.
Numbers of_inputs(const Inputs& in, int numbers, double decay) {
    Numbers result(at(in.padded * numbers));
    for (Size a = 0; a < in.padded; ++a)
        for (int n = 0; n < numbers; ++n)
            result[at(a / pair_block * pair_block * numbers + n * pair_block + a % pair_block)] =
                std::pow(decay, n) * (1.5 + std::cos(1.0 + 0.7 * n + in.root_change[at(a)]));
    return result;
}

void check_series(Size n, int parity, int terms, int feature_count, bool mirrored) {
    const Inputs in(n, false);
    Pairs pairs(in);
    const Numbers series = of_inputs(in, terms, 0.9), feature = of_inputs(in, feature_count, 0.5);
    const igb::PairSeriesView view{parity,         terms, terms * pair_block, series.data(), feature_count,
                                   feature.data(), 1.7};
    igb::cuda::add_series(nullptr, in.view(), view, 0.3, mirrored, pairs.matrices());
    pairs.for_blocks(
        [&](const PairRows& rows, PairSink& sink) { twins().add_series(in.view(), view, 0.3, mirrored, rows, sink); });
    pairs.same_terms();
}

void check_closed_forms(Size n, bool layernorm, bool mirrored) {
    const Inputs in(n, layernorm);
    {
        Pairs pairs(in);
        const igb::PiecewiseLinearView line{0.36, mirrored ? 0.0 : 0.16};
        igb::cuda::add_piecewise_linear(nullptr, in.view(), line, 0.8, mirrored, pairs.matrices());
        pairs.for_blocks([&](const PairRows& rows, PairSink& sink) {
            twins().add_piecewise_linear(in.view(), line, 0.8, mirrored, rows, sink);
        });
        pairs.same_terms();
    }
    Pairs pairs(in);
    const Numbers feature = of_inputs(in, 5, 0.5);
    const igb::PairSeriesView view{-1, 0, 0, nullptr, 5, feature.data(), 0.1};
    igb::cuda::add_erf(nullptr, in.view(), view, 0.8, mirrored, pairs.matrices());
    pairs.for_blocks(
        [&](const PairRows& rows, PairSink& sink) { twins().add_erf(in.view(), view, 0.8, mirrored, rows, sink); });
    pairs.same_terms();
}

void check_settle(Size n, bool mirrored) {
    const Inputs in(n, false), next(n, false, 1.3);
    Pairs pairs(in);
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> some(0.0, 1.0);
    pairs.for_pairs([&](Size there, Size here) {
        pairs.gpu[2][at(there)] = pairs.cpu[2][at(here)] = 0.2 * pairs.cpu[0][at(here)] * some(random);
        pairs.gpu[3][at(there)] = pairs.cpu[3][at(here)] = 0.2 * pairs.cpu[1][at(here)] * some(random);
    });
    const Numbers mean = of_inputs(in, 1, 1.0), mean_change = of_inputs(in, 1, 1.0);
    const igb::PairMap map{1.0, 1.1, mirrored ? 0.0 : 0.2, 0.05, mirrored, mean.data(), mean_change.data()};
    igb::cuda::settle(nullptr, in.view(), next.view(), map, pairs.matrices());
    pairs.for_blocks([&](const PairRows& rows, PairSink& sink) {
        const igb::PairSums sums = twins().settle(in.view(), next.view(), map, sink, rows);
        pairs.sums.covariance += sums.covariance;
        pairs.sums.distance += sums.distance;
        pairs.sums.correlation += sums.correlation;
    });
    pairs.same(0, 1, 1.0);
    const double all = 0.5 * static_cast<double>(n * (n - 1));
    CHECK_CLOSE(pairs.total(PairMatrices::covariances), pairs.sums.covariance, 1e-13 * all);
    CHECK_CLOSE(pairs.total(PairMatrices::distances), pairs.sums.distance, 1e-13 * pairs.sums.distance);
    CHECK_CLOSE(pairs.total(PairMatrices::correlations), pairs.sums.correlation, 1e-13 * all);
}

// E[phi_a phi_b] = 2 + cos(3 t), E[(phi_a - phi_b)^2] / (2 s) = exp(t), of the angles that find_angles finds.
void check_curve(Size n) {
    const Inputs in(n, true);
    Pairs pairs(in);
    igb::cuda::find_angles(nullptr, in.view(), pairs.matrices());
    double low = 4.0, high = 0.0;
    for (Size b = 0; b < pairs.blocks(); ++b) {
        low = std::fmin(low, pairs.parts[at(b)]);
        high = std::fmax(high, pairs.parts[at(pairs.blocks() + b)]);
    }
    double true_low = 4.0, true_high = 0.0;
    const auto angle_of = [&](Size here_a, Size here_b) {
        long double sum2 = 0.0L, difference2 = 0.0L;  // of unit vectors
        for (Size k = 0; k < features; ++k) {
            const long double u = in.x[at(here_a * features + k)] / std::sqrt(features * (long double)in.q[at(here_a)]);
            const long double v = in.x[at(here_b * features + k)] / std::sqrt(features * (long double)in.q[at(here_b)]);
            sum2 += (u + v) * (u + v);
            difference2 += (u - v) * (u - v);
        }
        return static_cast<double>(2.0L * std::atan2(std::sqrt(difference2), std::sqrt(sum2)));
    };
    for (Size a = 0; a < n; ++a)
        for (Size b = a + 1; b < n; ++b) {
            const double angle = angle_of(a, b);
            if (angle > 1e-14) true_low = std::fmin(true_low, angle);  // the same but for the rounding of q
            true_high = std::fmax(true_high, angle);
        }
    CHECK_CLOSE(low, true_low, 1e-3 * true_low);
    CHECK_CLOSE(high, true_high, 1e-14);

    igb::AdaptiveCurve curve;
    const auto evaluate = [](int count, const double* t, igb::AdaptiveCurve::Values* out) {
        for (int i = 0; i < count; ++i) out[i] = {2.0 + std::cos(3.0 * t[i]), std::exp(t[i])};
    };
    CHECK(curve.build(low * (1.0 - 1e-12), high * (1.0 + 1e-12), 1e-14, evaluate));
    igb::cuda::add_curve(nullptr, in.view(), curve.view(1.0, 3.0), 0.5, pairs.matrices());
    pairs.for_pairs([&](Size there, Size) {
        const Size a = there / n, b = there % n;
        const double angle = angle_of(a, b), half = std::sin(0.5 * angle), s = 2.0 * half * half;
        CHECK_CLOSE(pairs.gpu[2][at(there)], 0.5 * (2.0 + std::cos(3.0 * angle)), 1e-12);
        CHECK_CLOSE(pairs.gpu[3][at(there)], 0.5 * s * std::exp(angle), 1e-12 * s + 1e-27);
    });
}

// T from K: (K_aa + K_bb) / 2 - |K_ab| in long double, K in the upper triangle.
void check_start(Size n) {
    const Inputs in(n, false);
    Pairs pairs(in);
    Numbers given(at(n * n), nan);
    for (Size a = 0; a < n; ++a) {
        given[at(a * n + a)] = in.q[at(a)];
        for (Size b = a + 1; b < n; ++b)
            given[at(a * n + b)] = 0.999 * std::sin(1.0 + 3.0 * static_cast<double>(a * b));
        for (Size b = a + 1; b < n; ++b)
            given[at(a * n + b)] *=
                a % 3 == 0 ? 0.5 * (in.q[at(a)] + in.q[at(b)]) : std::sqrt(in.q[at(a)] * in.q[at(b)]);
    }
    igb::cuda::start_from_covariance(nullptr, given.data(), pairs.matrices());
    pairs.for_pairs([&](Size there, Size) {
        const Size a = there / n, b = there % n;
        const long double sum = static_cast<long double>(given[at(a * n + a)]) + given[at(b * n + b)];
        const double want = static_cast<double>(0.5L * sum - std::fabs(static_cast<long double>(given[at(there)])));
        CHECK(pairs.gpu[0][at(there)] == given[at(there)]);
        CHECK_CLOSE(pairs.gpu[1][at(there)], std::fmax(want, 0.0), 4e-16 * std::abs(want));
    });
}

}  // namespace

int main() {
    for (const Size n : {2, 3, 33, 65}) {
        check_closed_forms(n, n == 33, n > 3);
        check_settle(n, n == 65);
        check_start(n);
        check_curve(n);
    }
    check_closed_forms(65, false, false);
    check_series(2, 0, 1, 0, false);
    check_series(17, 1, 31, 1, false);
    check_series(33, -1, 32, 7, true);
    check_series(65, -1, 33, 33, false);
    check_series(70, 0, 70, 12, false);
    return summary();
}
