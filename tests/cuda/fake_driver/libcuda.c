// A driver that is too old, or sees no GPU, as the CUDA runtime meets it: the few functions that it asks for before it
// gives up. The environment variables FAKE_DRIVER_VERSION (12040 is CUDA 12.4) and FAKE_DRIVER_INIT (what cuInit
// returns: 100 is CUDA_ERROR_NO_DEVICE) say which.
#include <stdlib.h>
#include <string.h>

static int number(const char* name, int otherwise) {
    const char* text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) {
    (void)flags;
    return number("FAKE_DRIVER_INIT", 0);
}

int cuDriverGetVersion(int* version) {
    *version = number("FAKE_DRIVER_VERSION", 0);
    return 0;
}

int cuDeviceGetCount(int* count) {
    *count = 0;
    return 0;
}

int cuGetExportTable(const void** table, const void* id) {
    (void)id;
    *table = NULL;
    return 500;  // CUDA_ERROR_NOT_FOUND
}

static int unknown(void) { return 999; }

int cuGetProcAddress_v2(const char* symbol, void** function, int version, unsigned long long flags, int* status) {
    (void)version, (void)flags;
    *function = !strcmp(symbol, "cuInit")               ? (void*)cuInit
                : !strcmp(symbol, "cuDriverGetVersion") ? (void*)cuDriverGetVersion
                : !strcmp(symbol, "cuDeviceGetCount")   ? (void*)cuDeviceGetCount
                : !strcmp(symbol, "cuGetExportTable")   ? (void*)cuGetExportTable
                : !strcmp(symbol, "cuGetProcAddress")   ? (void*)cuGetProcAddress_v2
                                                        : (void*)unknown;
    if (status) *status = 0;
    return 0;
}
