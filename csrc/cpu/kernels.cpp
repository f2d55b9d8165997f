// The table of the kernels of one instruction set. Compiled once for each: IGB_ISA names it.
#include "cpu/kernels.h"

#include "core/config.h"

#define IGB_TEXT_OF(name) #name
#define IGB_TEXT(name) IGB_TEXT_OF(name)

namespace igb::inline IGB_ISA {

void normals_f32(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, float* out);
void normals_f64(const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, double* out);
void weights_f32(WeightLaw, const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, float* out);
void weights_f64(WeightLaw, const StreamId&, std::uint32_t row, std::uint64_t begin, std::uint64_t count, double* out);
SingleMoments single_moments(const Activation&, double q);
SplitMoments split_moments(const Activation&, double sigma_mu2, double sigma_y2);
double pair_moment(const Activation&, int derivative, double q_aa, double q_bb, double c);
SingleMoments table_single(const TableView&, int size, double q);
SplitMoments table_split(const TableView&, int size, double sigma_mu2, double sigma_y2, SeriesCache&);
double table_pair(const TableView&, int size, int derivative, double q_aa, double q_bb, double c, SeriesCache&);
SingleMoments level_single(const TableMixture&, int size, double q);
SplitMoments level_split(const TableMixture&, int size, double sigma_mu2, double sigma_y2);
double level_pair(const TableMixture&, int size, int derivative, double q_aa, double q_bb, double c);
void table_values(const TableView&, int derivative, std::int64_t count, const double* x, double* out);
extern const CovarianceKernels covariance_kernels;

extern const Kernels table;
const Kernels table{
    .isa = IGB_TEXT(IGB_ISA),
    .tile_f32 = {normals_f32, weights_f32, activate<float>, sum_nodes<float>, pool<float>, map_columns<float>,
                 sum_columns<float>, multiply<float>},
    .tile_f64 = {normals_f64, weights_f64, activate<double>, sum_nodes<double>, pool<double>, map_columns<double>,
                 sum_columns<double>, multiply<double>},
    .single_moments = single_moments,
    .split_moments = split_moments,
    .pair_moment = pair_moment,
    .table_single = table_single,
    .table_split = table_split,
    .table_pair = table_pair,
    .level_single = level_single,
    .level_split = level_split,
    .level_pair = level_pair,
    .table_values = table_values,
    .covariance = &covariance_kernels,
};

}  // namespace igb::inline IGB_ISA
