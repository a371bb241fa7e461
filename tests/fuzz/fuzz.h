/*
 * Fuzz targets: one fuzz_<parser>.c for each parser of foreign bytes, with the entry function alone.
 * With libFuzzer where the build has it (preset fuzz), else with replay.c, which every build runs
 * as a ctest. What a fuzzer found goes into corpus/<parser>/ together with the fix.
 */
#ifndef MOTTE_TESTS_FUZZ_H
#define MOTTE_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
#define FUZZ_CHECK(what)                                                                           \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
