// Which of the compiled instruction sets is in use: the best that this processor runs, or the one that the environment
// variable IGBFAST_ISA or select_isa names.
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"

namespace igb {

namespace baseline {
extern const Kernels table;
}
#ifdef IGB_X86_64
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

#ifdef IGB_X86_64
// The features named here are those that cmake/instruction_sets.cmake lets the compiler use, one for one. The builtin
// also asks whether the operating system saves the wide registers.
bool runs_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

struct Available {
    const Kernels* tables[3] = {};
    const char* names[3] = {};
    int count = 0;

    void add(const Kernels& table) {
        tables[count] = &table;
        names[count++] = table.isa;
    }
};

const Available& available() {
    static const Available found = [] {
        Available a;
        a.add(baseline::table);
#ifdef IGB_X86_64
        if (runs_avx2()) a.add(avx2::table);
        if (runs_avx512()) a.add(avx512::table);
#endif
        return a;
    }();
    return found;
}

const Kernels* find(const char* name) {
    const Available& a = available();
    for (int i = 0; i < a.count; ++i) {
        if (std::strcmp(a.names[i], name) == 0) return a.tables[i];
    }
    return nullptr;
}

const Kernels* first_choice() {
    const char* asked = std::getenv("IGBFAST_ISA");
    const Kernels* found = asked ? find(asked) : nullptr;
    return found ? found : available().tables[available().count - 1];
}

std::atomic<const Kernels*>& in_use() {
    static std::atomic<const Kernels*> table{first_choice()};
    return table;
}

}  // namespace

const Kernels& kernels() { return *in_use().load(std::memory_order_acquire); }

bool select_isa(const char* name) {
    const Kernels* found = find(name);
    if (found) in_use().store(found, std::memory_order_release);
    return found != nullptr;
}

const char* const* available_isas(int* count) {
    *count = available().count;
    return available().names;
}

}  // namespace igb
