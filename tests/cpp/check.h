// The least that a C++ test needs. CHECK and its kin report what failed and where; `return summary();` ends main with a
// line of counts and the exit status.
#pragma once

#include <cmath>
#include <cstdio>

inline int& failures() {
    static int count = 0;
    return count;
}

inline int& passes() {
    static int count = 0;
    return count;
}

inline bool count_check(bool passed) {
    ++(passed ? passes() : failures());
    return passed;
}

inline int summary() {
    std::printf("%d passed, %d failed\n", passes(), failures());
    return failures() == 0 ? 0 : 1;
}

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!count_check(static_cast<bool>(condition))) {                                \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                                \
    } while (false)

// |value - reference| <= tolerance; not so for nan.
#define CHECK_CLOSE(value, reference, tolerance)                                                                   \
    do {                                                                                                           \
        const double check_value = static_cast<double>(value), check_reference = static_cast<double>(reference);   \
        const double check_tolerance = static_cast<double>(tolerance);                                             \
        if (!count_check(std::abs(check_value - check_reference) <= check_tolerance)) {                            \
            std::fprintf(stderr, "%s:%d: failed: %s = %.17g, not %.17g within %.3g\n", __FILE__, __LINE__, #value, \
                         check_value, check_reference, check_tolerance);                                           \
        }                                                                                                          \
    } while (false)

#define CHECK_THROWS(Exception, statement)                                                              \
    do {                                                                                                \
        bool thrown = false;                                                                            \
        try {                                                                                           \
            statement;                                                                                  \
        } catch (const Exception&) {                                                                    \
            thrown = true;                                                                              \
        }                                                                                               \
        if (!count_check(thrown)) {                                                                     \
            std::fprintf(stderr, "%s:%d: no %s from %s\n", __FILE__, __LINE__, #Exception, #statement); \
        }                                                                                               \
    } while (false)
