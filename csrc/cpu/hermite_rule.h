// Coefficients f_n = E[f(z) h_n(z)] in the orthonormal Hermite polynomials h_n, for functions analytic around the real
// line: a trapezoidal rule in z as one matrix, the same whatever f is.
#pragma once

#include "cpu/aligned.h"

namespace igb {

struct HermiteRule {
    int parity;  // of f: with 1 or -1, the terms of that parity alone, from z >= 0
    int terms, nodes;
    AlignedVector<double> z, weight;  // E[g(z)] = sum_k weight_k g(z_k), g of parity 1 (or any, if parity is 0)
    AlignedVector<double> matrix;     // [term][node]: f_n = sum_k matrix_nk f(z_k)

    static constexpr int levels = 7;                               // of 64, 128, ... 4096 orders
    static const HermiteRule& of(int function_parity, int level);  // made when first asked for

    HermiteRule(int function_parity, int level);

    int order(int term) const { return parity == 0 ? term : parity > 0 ? 2 * term : 2 * term + 1; }
};

}  // namespace igb
