// Pools of functions that rise and fall, where sanitizers look on: every instruction set, variances and distances
// between inputs from the smallest to the largest. tests/test_pools_general.py holds the values against closed forms.
#include <cmath>
#include <memory>
#include <numbers>
#include <stdexcept>

#include "check.h"
#include "cpu/moments.h"

namespace {

// alpha x below zero and beta x above.
std::shared_ptr<igb::Table> two_lines(double alpha, double beta) {
    auto table = std::make_shared<igb::Table>();
    for (int k = 12; k >= 0; --k) table->edges.push_back(-std::ldexp(1.0, k - 3));
    table->edges.push_back(0.0);
    for (int k = 0; k <= 12; ++k) table->edges.push_back(std::ldexp(1.0, k - 3));
    for (igb::Table::Series& series : table->series) {
        series.coefficients.assign(table->panels() * igb::table_terms, 0.0);
        series.by_x.assign(table->panels(), 0);
    }
    for (std::size_t p = 0; p < table->panels(); ++p) {
        const double slope = table->edges[p] < 0.0 ? alpha : beta;
        table->series[0].coefficients[p * igb::table_terms] = slope;
        table->series[0].by_x[p] = 1;
        table->series[1].coefficients[p * igb::table_terms] = slope;
    }
    table->kinks = {0.0};
    table->jumps = {0.0};
    table->parity = alpha == -beta ? 1 : 0;
    table->q_max = 2500.0;
    table->finish();
    return table;
}

igb::Phi phi_of(const std::shared_ptr<igb::Table>& table) {
    return {{{1.0, {igb::Activation{igb::ActivationKind::linear}, table}}}};
}

// max(|a|, |b|) = (|a + b| + |a - b|) / 2, of independent halves.
void absolute_values_in_closed_form() {
    constexpr double pi = std::numbers::pi;
    igb::Expectations pool(phi_of(two_lines(-1.0, 1.0)), {igb::PoolKind::max, 2});
    for (const double q : {5e-324, 1e-310, 1e-200, 0.003, 1.0, 2500.0}) {
        const double unit = q > 1e-300 ? q : 1e-300, square = unit * (1.0 + 2.0 / pi);
        const igb::SingleMoments at = pool.single(q);
        CHECK_CLOSE(at.square / square, 1.0, 1e-12);
        CHECK_CLOSE(at.mean / std::sqrt(unit), 2.0 / std::sqrt(pi), 1e-12);
        CHECK_CLOSE(at.slope2, 1.0, 1e-12);
        CHECK_CLOSE(at.square_dq, 1.0 + 2.0 / pi, 1e-12);
        for (const double c : {-1.0, -0.9, 0.0, 0.5, 0.97, 1.0}) {
            const double folded = 2.0 / pi * (std::sqrt((1.0 - c) * (1.0 + c)) + c * std::asin(c));
            CHECK_CLOSE(pool.pair(0, q, q, c) / unit, folded + 2.0 / pi, 1e-11);
        }
    }
}

void close_inputs_differ_by_the_slopes() {
    for (const igb::PoolKind kind : {igb::PoolKind::max, igb::PoolKind::min}) {
        igb::Expectations pool(phi_of(two_lines(-0.5, 2.0)), {kind, 3});
        const double slope2 = pool.single(1.0).slope2;
        for (const double s : {1e-300, 1e-100, 1e-30, 1e-24}) {
            CHECK_CLOSE(pool.split(1.0, s).spread / s / slope2, 1.0, 1e-10);
        }
        CHECK(pool.split(1.0, 0.0).spread == 0.0);
        for (const double s : {1e-12, 1e-3, 0.3}) {
            const igb::SplitMoments split = pool.split(1.0, s);
            CHECK_CLOSE(split.centre + split.spread, pool.single(1.0 + s).square, 1e-11);
        }
    }
}

void mixtures_of_one_phi_are_that_phi() {
    const std::shared_ptr<igb::Table> table = two_lines(-0.5, 2.0);
    const igb::Leaf leaf{igb::Activation{igb::ActivationKind::linear}, table};
    igb::Expectations one(phi_of(table), {igb::PoolKind::max, 3});
    igb::Expectations two(igb::Phi{{{0.3, leaf}, {0.7, leaf}}}, {igb::PoolKind::max, 3});
    CHECK_CLOSE(two.single(2.0).square, one.single(2.0).square, 1e-12);
    for (const double c : {-0.5, 0.5, 0.99}) {
        CHECK_CLOSE(two.pair(0, 2.0, 2.0, c), one.pair(0, 2.0, 2.0, c), 1e-11);
        CHECK_CLOSE(two.pair(1, 2.0, 2.0, c), one.pair(1, 2.0, 2.0, c), 1e-11);
    }
}

void what_cannot_be_had_is_thrown() {
    igb::Expectations pool(phi_of(two_lines(-0.5, 2.0)), {igb::PoolKind::max, 3});
    CHECK_THROWS(std::runtime_error, pool.pair(0, 1.0, 1.0, -0.9999));
    CHECK_THROWS(std::runtime_error, pool.pair(0, 1.0, 2.0, 0.9999));
    CHECK_THROWS(std::invalid_argument, pool.pair(2, 1.0, 1.0, 0.5));
}

}  // namespace

int main() {
    int count = 0;
    const char* const* isas = igb::available_isas(&count);
    for (int i = 0; i < count; ++i) {
        CHECK(igb::select_isa(isas[i]));
        absolute_values_in_closed_form();
        close_inputs_differ_by_the_slopes();
        mixtures_of_one_phi_are_that_phi();
        what_cannot_be_had_is_thrown();
    }
    return summary();
}
