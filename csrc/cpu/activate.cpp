// What happens to one tile between two layers (see activate.h).
// Inner loops run over the nodes of one block, whose anchors and sums stay in registers or the first-level cache;
// every vector lane is a node, so that sums over the inputs need no horizontal step and no tail.
#include "cpu/activate.h"

#include <cmath>
#include <type_traits>

#include "core/activations.h"
#include "cpu/kernels.h"
#include "cpu/tabulated_phi.h"

namespace igb::inline IGB_ISA {

namespace {

constexpr int block = static_cast<int>(node_block);
constexpr std::int64_t inputs_per_sum = 64;  // a single-precision sum is handed on to double after so many terms

NodeMoments from_node(const NodeMoments& moments, std::int64_t i) {
    return {moments.origin + i, moments.sum + i, moments.sum2 + i, moments.origin_slope2 + i, moments.slope2 + i};
}

// ---- The nonlinearity -----------------------------------------------------------------------------------------------

// An activation with rules of its own as phi of a block of nodes; TabulatedPhi is the other kind.
template <class T, class Phi>
class RuledPhi {
public:
    explicit RuledPhi(const Phi& phi) : phi_(phi) {}

    void start(const T* m, T* value, T* slope) {
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            m_[j] = m[j];
            anchor_[j] = phi_.anchor(m[j]);
            value[j] = phi_.value(m[j]);
            slope[j] = phi_.slope(m[j]);
        }
    }

    void look_at(const T*, T) {}
    IGB_HD Change<T> change(int j, T d) const { return phi_.change(m_[j], anchor_[j], d); }
    bool left_table(std::int64_t) const { return false; }

private:
    const Phi phi_;
    alignas(64) T m_[block], anchor_[block];
};

// gain_a for every input, and a power of two next to the largest: squares are summed in units of it.
struct Gains {
    const double* each;
    double unit = 1.0;

    Gains(const double* gains, std::int64_t inputs) : each(gains) {
        if (!gains) return;
        double largest = 0.0;
        for (std::int64_t a = 0; a < inputs; ++a) largest = absolute(gains[a]) > largest ? absolute(gains[a]) : largest;
        if (largest > 0.0 && largest <= 0x1p1023) unit = std::ldexp(1.0, std::ilogb(largest));
    }

    double at(std::int64_t a) const { return each ? each[a] : 1.0; }

    template <class T>
    T held(std::int64_t a) const {  // finite in T
        constexpr double largest = std::is_same_v<T, float> ? 0x1p127 : 0x1p1023;
        return static_cast<T>(at(a) < largest ? at(a) : largest);
    }
};

template <class T, class BlockPhi>
TileNorms activate_block(BlockPhi& phi, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                         const TileUnits& in, const TileUnits& out, const NodeMoments& moments, const Gains& gains,
                         T* slopes) {
    alignas(64) T m[block], value[block], slope[block], unused[block];
    alignas(64) double sum[block], sum2[block], slope2[block], norm2[block];
    const T origin_in = static_cast<T>(in.origin), origin_out = static_cast<T>(1.0 / out.origin);
    const T difference_in = static_cast<T>(in.difference), difference_out = static_cast<T>(1.0 / out.difference);
    const std::int64_t slopes_ld = slopes ? ld : 0;
    T* const slopes_at = slopes ? slopes : unused;
    const double gain_unit2 = gains.unit * gains.unit;

    for (int j = 0; j < block; ++j) m[j] = tile[j] * origin_in;
    phi.start(m, value, slope);
    const double first_gain = gains.at(0);
#pragma omp simd
    for (int j = 0; j < block; ++j) {
        const double gained = first_gain * static_cast<double>(slope[j]);
        moments.origin[j] = static_cast<double>(tile[j]);
        moments.origin_slope2[j] = gained * gained;
        slopes_at[j] = static_cast<T>(gained);
        slope2[j] = 0.0;
        tile[j] = value[j] * origin_out;
        sum[j] = 0.0;
        sum2[j] = 0.0;
        norm2[j] = 0.0;
    }
    for (std::int64_t first = 1; first < inputs; first += inputs_per_sum) {
        const std::int64_t last = first + inputs_per_sum < inputs ? first + inputs_per_sum : inputs;
        alignas(64) T s1[block] = {}, s2[block] = {}, s3[block] = {}, s4[block] = {};
        for (std::int64_t a = first; a < last; ++a) {
            T* const column = tile + a * ld;
            T* const slopes_out = slopes_at + a * slopes_ld;
            const T gain = gains.held<T>(a), share = static_cast<T>(gains.at(a) / gains.unit);
            phi.look_at(column, difference_in);
#pragma omp simd
            for (int j = 0; j < block; ++j) {
                const T d = column[j];
                const auto change = phi.change(j, d * difference_in);
                const T x = change.difference * difference_out;
                const T shared = share * change.slope;
                column[j] = x;
                slopes_out[j] = gain * change.slope;
                s1[j] += d;
                s2[j] += d * d;
                s3[j] += shared * shared;
                s4[j] += x * x;
            }
        }
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            sum[j] += static_cast<double>(s1[j]);
            sum2[j] += static_cast<double>(s2[j]);
            slope2[j] += static_cast<double>(s3[j]);
            norm2[j] += static_cast<double>(s4[j]);
        }
    }
    TileNorms norms;
    for (int j = 0; j < block; ++j) {
        moments.sum[j] = sum[j];
        moments.sum2[j] = sum2[j];
        moments.slope2[j] = slope2[j] * gain_unit2;
        if (j < nodes) {  // the padding does not count
            norms.origin += static_cast<double>(tile[j]) * static_cast<double>(tile[j]);
            norms.difference += norm2[j];
        }
    }
    norms.beyond_table = phi.left_table(nodes);
    return norms;
}

template <class T, class BlockPhi>
TileNorms activate_with(BlockPhi&& phi, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                        const TileUnits& in, const TileUnits& out, const NodeMoments& moments, const double* gains,
                        T* slopes) {
    const Gains gain(gains, inputs);
    TileNorms norms;
    for (std::int64_t i = 0; i < nodes; i += block) {
        const TileNorms part = activate_block<T>(phi, nodes - i, inputs, tile + i, ld, in, out, from_node(moments, i),
                                                 gain, slopes ? slopes + i : nullptr);
        norms.origin += part.origin;
        norms.difference += part.difference;
        norms.beyond_table = norms.beyond_table || part.beyond_table;
    }
    return norms;
}

// ---- Pools ----------------------------------------------------------------------------------------------------------

// The largest that every node of a block has been offered, and by which member; the first of equals wins.
template <class T>
struct Largest {
    alignas(64) T value[block], member[block];

    void offer(std::int64_t s, T sign, const T* column, const T* behind) {
        const T number = static_cast<T>(s);
        const bool first = s == 0;
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            const T offered = behind[j] + sign * column[j];
            const bool wins = first | (offered > value[j]);
            value[j] = wins ? offered : value[j];
            member[j] = wins ? number : member[j];
        }
    }

    void write_shares(const TileShape& shape, T* shares) const {
        for (std::int64_t s = 0; s < shape.members; ++s) {
            T* const out = shares + s * shape.member;
            const T number = static_cast<T>(s);
#pragma omp simd
            for (int j = 0; j < block; ++j) out[j] = member[j] == number ? T{1} : T{0};
        }
    }
};

// The largest member (sign = 1) or the smallest (-1). With M the largest origin, the largest value less M is the
// largest of g_s + d_s, where g_s = y_0s - M <= 0, and 0 for the winner. Later members' rows of column 0 hold their g_s
// meanwhile.
template <class T>
void pool_extremes(T sign, const TileShape& shape, T* tile, const TileUnits& units, T* shares) {
    constexpr double largest = std::is_same_v<T, float> ? 0x1p126 : 0x1p1022;
    const double quotient = units.origin / units.difference, ratio = quotient < largest ? quotient : largest;
    const T none[block] = {};
    alignas(64) T behind[block];
    Largest<T> top;
    for (std::int64_t s = 0; s < shape.members; ++s) top.offer(s, sign, tile + s * shape.member, none);
    if (shares) top.write_shares(shape, shares);
    for (std::int64_t s = 0; s < shape.members; ++s) {
        T* const origin = tile + s * shape.member;
        T* const g = s == 0 ? behind : origin;
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            const double apart = (static_cast<double>(sign * origin[j]) - static_cast<double>(top.value[j])) * ratio;
            g[j] = static_cast<T>(apart < -largest ? -largest : apart);
        }
    }
    for (int j = 0; j < block; ++j) tile[j] = sign * top.value[j];
    for (std::int64_t a = 1; a < shape.inputs; ++a) {
        T* const column = tile + a * shape.ld;
        for (std::int64_t s = 0; s < shape.members; ++s) {
            top.offer(s, sign, column + s * shape.member, s == 0 ? behind : tile + s * shape.member);
        }
        if (shares) top.write_shares(shape, shares + a * shape.ld);
        for (int j = 0; j < block; ++j) column[j] = sign * top.value[j];
    }
}

template <class T>
void pool_averages(const TileShape& shape, T* tile, T* shares) {
    const T share = static_cast<T>(1.0 / static_cast<double>(shape.members));
    for (std::int64_t a = 0; a < shape.inputs; ++a) {
        T* const column = tile + a * shape.ld;
        alignas(64) T sum[block] = {};
        for (std::int64_t s = 0; s < shape.members; ++s) {
            const T* const member = column + s * shape.member;
            for (int j = 0; j < block; ++j) sum[j] += member[j];
            if (!shares) continue;
            for (int j = 0; j < block; ++j) shares[a * shape.ld + s * shape.member + j] = share;
        }
        for (int j = 0; j < block; ++j) column[j] = sum[j] * share;
    }
}

template <class T>
double squared_norm(std::int64_t nodes, const T* column) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < nodes; ++j) sum += static_cast<double>(column[j]) * static_cast<double>(column[j]);
    return sum;
}

}  // namespace

template <class T>
TileNorms activate(const PhiView& phi, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld,
                   const TileUnits& in, const TileUnits& out, const NodeMoments& moments, const double* gains,
                   T* slopes) {
    const auto with = [&](auto&& block_phi) {
        return activate_with<T>(block_phi, nodes, inputs, tile, ld, in, out, moments, gains, slopes);
    };
    if (phi.table) return with(TabulatedPhi<T>(*phi.table));
    return visit<T>(phi.activation,
                    [&](const auto& rule) { return with(RuledPhi<T, std::decay_t<decltype(rule)>>(rule)); });
}

template <class T>
void sum_nodes(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, const NodeMoments& moments) {
    for (std::int64_t i = 0; i < nodes; i += block) {
        alignas(64) double sum[block] = {}, sum2[block] = {};
        for (std::int64_t first = 1; first < inputs; first += inputs_per_sum) {
            const std::int64_t last = first + inputs_per_sum < inputs ? first + inputs_per_sum : inputs;
            alignas(64) T s1[block] = {}, s2[block] = {};
            for (std::int64_t a = first; a < last; ++a) {
                const T* const column = tile + i + a * ld;
#pragma omp simd
                for (int j = 0; j < block; ++j) {
                    s1[j] += column[j];
                    s2[j] += column[j] * column[j];
                }
            }
            for (int j = 0; j < block; ++j) {
                sum[j] += static_cast<double>(s1[j]);
                sum2[j] += static_cast<double>(s2[j]);
            }
        }
        for (int j = 0; j < block; ++j) {
            moments.origin[i + j] = static_cast<double>(tile[i + j]);
            moments.sum[i + j] = sum[j];
            moments.sum2[i + j] = sum2[j];
        }
    }
}

template <class T>
TileNorms pool(PoolKind kind, const TileShape& shape, T* tile, const TileUnits& units, T* shares) {
    TileNorms norms;
    for (std::int64_t i = 0; i < shape.nodes; i += block) {
        T* const here = tile + i;
        T* const shares_here = shares ? shares + i : nullptr;
        if (kind == PoolKind::average) {
            pool_averages(shape, here, shares_here);
        } else {
            pool_extremes(static_cast<T>(kind == PoolKind::min ? -1 : 1), shape, here, units, shares_here);
        }
        const std::int64_t count = shape.nodes - i < block ? shape.nodes - i : block;
        norms.origin += squared_norm(count, here);
        for (std::int64_t a = 1; a < shape.inputs; ++a) norms.difference += squared_norm(count, here + a * shape.ld);
    }
    return norms;
}

template <class T>
void map_columns(const ColumnMap* maps, std::int64_t nodes, std::int64_t inputs, T* tile, std::int64_t ld) {
    for (std::int64_t i = 0; i < nodes; i += block) {
        T* const origin = tile + i;
        for (std::int64_t a = 1; a < inputs; ++a) {
            T* const column = origin + a * ld;
            const ColumnMap map = maps[a];
#pragma omp simd
            for (int j = 0; j < block; ++j) {
                const double here = static_cast<double>(column[j]), y = static_cast<double>(origin[j]);
                column[j] = static_cast<T>(map.scale * here + (map.from_origin * y + map.shift));
            }
        }
        const ColumnMap map = maps[0];  // last: the others are made from the origin as it was
#pragma omp simd
        for (int j = 0; j < block; ++j) {
            origin[j] = static_cast<T>(map.scale * static_cast<double>(origin[j]) + map.shift);
        }
    }
}

template <class T>
void sum_columns(std::int64_t nodes, std::int64_t inputs, const T* tile, std::int64_t ld, double* sums) {
    for (std::int64_t a = 0; a < inputs; ++a) {
        const T* const column = tile + a * ld;
        double sum = 0.0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t j = 0; j < nodes; ++j) sum += static_cast<double>(column[j]);
        sums[a] += sum;
    }
}

template <class T>
void multiply(std::int64_t nodes, std::int64_t inputs, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
              T* out, std::int64_t ldo, const double* weights, double* squares) {
    for (std::int64_t i = 0; i < nodes; i += block) {
        alignas(64) double sum[block] = {};
        for (std::int64_t c = 0; c < inputs; ++c) {
            const T* const left = a + i + c * lda;
            const T* const right = b + i + c * ldb;
            T* const product = out + i + c * ldo;
            const double weight = squares ? weights[c] : 0.0;
#pragma omp simd
            for (int j = 0; j < block; ++j) {
                const T result = left[j] * right[j];
                product[j] = result;
                sum[j] += weight * (static_cast<double>(result) * static_cast<double>(result));
            }
        }
        for (int j = 0; squares && j < block && i + j < nodes; ++j) squares[i + j] = sum[j];
    }
}

template TileNorms activate<float>(const PhiView&, std::int64_t, std::int64_t, float*, std::int64_t, const TileUnits&,
                                   const TileUnits&, const NodeMoments&, const double*, float*);
template void sum_nodes<float>(std::int64_t, std::int64_t, const float*, std::int64_t, const NodeMoments&);
template TileNorms pool<float>(PoolKind, const TileShape&, float*, const TileUnits&, float*);
template void map_columns<float>(const ColumnMap*, std::int64_t, std::int64_t, float*, std::int64_t);
template void sum_columns<float>(std::int64_t, std::int64_t, const float*, std::int64_t, double*);
template void multiply<float>(std::int64_t, std::int64_t, const float*, std::int64_t, const float*, std::int64_t,
                              float*, std::int64_t, const double*, double*);
template TileNorms activate<double>(const PhiView&, std::int64_t, std::int64_t, double*, std::int64_t, const TileUnits&,
                                    const TileUnits&, const NodeMoments&, const double*, double*);
template void sum_nodes<double>(std::int64_t, std::int64_t, const double*, std::int64_t, const NodeMoments&);
template TileNorms pool<double>(PoolKind, const TileShape&, double*, const TileUnits&, double*);
template void map_columns<double>(const ColumnMap*, std::int64_t, std::int64_t, double*, std::int64_t);
template void sum_columns<double>(std::int64_t, std::int64_t, const double*, std::int64_t, double*);
template void multiply<double>(std::int64_t, std::int64_t, const double*, std::int64_t, const double*, std::int64_t,
                               double*, std::int64_t, const double*, double*);

}  // namespace igb::inline IGB_ISA
