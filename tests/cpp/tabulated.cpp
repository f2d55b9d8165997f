// Gaussian expectations of tables, where sanitizers look on: every instruction set, variances and distances between
// inputs from the smallest to the largest, pools of both kinds. tests/test_expectations.py holds the values against
// high precision.
#include "cpu/table.h"

#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "cpu/moments.h"
#include "cpu/parallel.h"

namespace {

// alpha x below zero and beta x + jump above: all that has closed forms here.
std::shared_ptr<igb::Table> two_lines(double alpha, double beta, double jump, int monotone) {
    auto table = std::make_shared<igb::Table>();
    for (int k = 12; k >= 0; --k) table->edges.push_back(-std::ldexp(1.0, k - 3));
    table->edges.push_back(0.0);
    for (int k = 0; k <= 12; ++k) table->edges.push_back(std::ldexp(1.0, k - 3));
    for (igb::Table::Series& series : table->series) {
        series.coefficients.assign(table->panels() * igb::table_terms, 0.0);
        series.by_x.assign(table->panels(), 0);
    }
    for (std::size_t p = 0; p < table->panels(); ++p) {
        const double low = table->edges[p], high = table->edges[p + 1];
        const double slope = low < 0.0 ? alpha : beta;
        double* const value = &table->series[0].coefficients[p * igb::table_terms];
        if (jump == 0.0 && (low == 0.0 || high == 0.0)) {
            table->series[0].by_x[p] = 1;
            value[0] = slope;
        } else {
            value[0] = 0.5 * slope * (low + high) + (low < 0.0 ? 0.0 : jump);
            value[1] = 0.5 * slope * (high - low);
        }
        table->series[1].coefficients[p * igb::table_terms] = slope;
    }
    table->kinks = {0.0};
    table->jumps = {jump};
    table->monotone = monotone;
    table->q_max = 2500.0;
    table->finish();
    return table;
}

igb::Phi phi_of(const std::shared_ptr<igb::Table>& table) {
    return {{{1.0, {igb::Activation{igb::ActivationKind::linear}, table}}}};
}

const double variances[] = {5e-324, 1e-310, 1e-200, 1e-8, 0.003, 1.0, 60.0, 2500.0};
const double distances[] = {0.0, 1e-300, 1e-150, 1e-40, 1e-16, 1e-9, 1e-4, 0.02, 0.1, 0.4, 0.9, 1.0};

// The known kernel of leaky ReLU against the same function as a table.
void leaky_relu_is_the_closed_form() {
    igb::Expectations table(phi_of(two_lines(0.25, 1.0, 0.0, 1)), {});
    const igb::Activation exact{igb::ActivationKind::leaky_relu, 0.25};
    const igb::Kernels& use = igb::kernels();
    for (const double q : variances) {
        const double unit = q > 1e-300 ? q : 1e-300;
        const igb::SingleMoments found = table.single(unit), known = use.single_moments(exact, unit);
        CHECK_CLOSE(found.mean, known.mean, 1e-14 * known.mean);
        CHECK_CLOSE(found.square, known.square, 1e-14 * known.square);
        CHECK_CLOSE(found.slope2, known.slope2, 1e-14);
        CHECK_CLOSE(found.square_dq, known.square_dq, 1e-13);
        for (const double s : distances) {
            const igb::SplitMoments split = table.split(unit * (1.0 - s), unit * s);
            const igb::SplitMoments closed = use.split_moments(exact, unit * (1.0 - s), unit * s);
            CHECK_CLOSE(split.spread, closed.spread, 2e-13 * closed.spread + 1e-310);
            CHECK_CLOSE(split.centre, closed.centre, 1e-13 * known.square);
            for (const double c : {1.0 - s, s - 1.0}) {
                for (const int derivative : {0, 1}) {
                    const double scale = derivative == 0 ? known.square : 1.0;
                    CHECK_CLOSE(table.pair(derivative, unit, unit, c),
                                use.pair_moment(exact, derivative, unit, unit, c), 1e-13 * scale);
                }
            }
        }
    }
    for (const double c : {-1.0, -0.97, -0.4, 0.0, 0.3, 0.99, 1.0}) {
        const double known = use.pair_moment(exact, 0, 0.3, 7.0, c);
        CHECK_CLOSE(table.pair(0, 0.3, 7.0, c), known, 1e-13);
    }
}

// P(u > 0, v > 0) = (1 - t / pi) / 2, cos t = c.
void a_step_is_the_angle() {
    constexpr double pi = 3.141592653589793;
    igb::Expectations table(phi_of(two_lines(0.0, 0.0, 1.0, 1)), {});
    CHECK(std::isinf(table.single(1.0).slope2));
    for (const double s : distances) {
        const double angle = 2.0 * std::asin(std::sqrt(0.5 * s));
        const igb::SplitMoments split = table.split(3.0 * (1.0 - s), 3.0 * s);
        CHECK_CLOSE(split.spread, 0.5 * angle / pi, 2e-13 * angle);
        CHECK_CLOSE(split.centre, 0.5 * (1.0 - angle / pi), 1e-13);
    }
}

// max(x, 0) of the largest of k: E[P^2] = k int_0^inf x^2 n(x) Phi(x)^(k-1) dx.
void pools_are_consistent() {
    const auto relu = two_lines(0.0, 1.0, 0.0, 1), falling = two_lines(-1.0, 0.0, 0.0, -1);
    constexpr double pi = 3.141592653589793;
    igb::Expectations pair(phi_of(relu), {igb::PoolKind::max, 2});
    CHECK_CLOSE(pair.single(1.0).square, (3.0 * pi + 2.0) / (4.0 * pi), 1e-14);
    CHECK_CLOSE(pair.single(1.0).slope2, 0.75, 1e-14);
    for (const int size : {2, 3, 9, 100}) {
        igb::Expectations max(phi_of(relu), {igb::PoolKind::max, size});
        igb::Expectations mirrored(phi_of(falling), {igb::PoolKind::max, size});
        igb::Expectations average(phi_of(relu), {igb::PoolKind::average, size});
        for (const double q : {1e-12, 0.003, 1.0, 60.0}) {
            const igb::SingleMoments at = max.single(q), other = mirrored.single(q);
            CHECK_CLOSE(at.square, other.square, 1e-13 * at.square);
            const igb::SplitMoments apart = max.split(0.0, q);
            CHECK_CLOSE(apart.centre, at.mean * at.mean, 1e-13 * at.square);
            CHECK_CLOSE(average.split(0.0, q).centre, std::pow(average.single(q).mean, 2), 1e-13 * q);
            for (const double s : {1e-30, 1e-6, 0.05, 0.5, 1.0}) {
                const igb::SplitMoments split = max.split(q * (1.0 - s), q * s);
                CHECK_CLOSE(split.centre + split.spread, at.square, 1e-12 * at.square);
                CHECK_CLOSE(max.pair(0, q, q, 1.0 - s), split.centre, 1e-12 * at.square);
                CHECK_CLOSE(split.spread, mirrored.split(q * (1.0 - s), q * s).spread, 1e-12 * split.spread);
            }
            for (const double c : {-1.0, -0.9, 0.7}) CHECK(std::isfinite(max.pair(0, q, 0.4 * q, c)));
        }
    }
}

void arrays_do_not_depend_on_threads() {
    const igb::Phi phi = phi_of(two_lines(-0.5, 1.0, 0.25, 0));
    std::vector<double> q, y2;
    for (int i = 0; i < 40; ++i) {
        q.push_back(0.1 * (1 + i % 7));
        y2.push_back(0.02 * i);
    }
    const auto count = static_cast<std::int64_t>(q.size());
    std::vector<igb::SplitMoments> alone(q.size()), shared(q.size());
    igb::Monitor monitor;
    igb::set_num_threads(1);
    igb::split_moments(phi, {}, count, q.data(), y2.data(), alone.data(), monitor);
    igb::set_num_threads(4);
    igb::split_moments(phi, {}, count, q.data(), y2.data(), shared.data(), monitor);
    for (std::size_t i = 0; i < q.size(); ++i) {
        CHECK(alone[i].centre == shared[i].centre && alone[i].spread == shared[i].spread);
    }
}

}  // namespace

int main() {
    int count = 0;
    const char* const* const isas = igb::available_isas(&count);
    for (int i = 0; i < count; ++i) {
        CHECK(igb::select_isa(isas[i]));
        leaky_relu_is_the_closed_form();
        a_step_is_the_angle();
    }
    pools_are_consistent();
    arrays_do_not_depend_on_threads();
    return summary();
}
