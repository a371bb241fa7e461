/* For tests of snapshots: a VM that writes one, and what lies on the disk of it. */
#ifndef MOTTE_TESTS_PRIV_SNAPSHOTS_H
#define MOTTE_TESTS_PRIV_SNAPSHOTS_H

#include "bench.h"

#define SNAPSHOT_SHAPE                                                                             \
    ((struct priv_shape){                                                                          \
        .vcpus = 1, .memory_mib = 128, .disk_mib = 16, .seccomp = PRIV_SECCOMP_MINIMAL})

/* A VM of that shape that has booted, with its disk, and said hello. */
void snapshot_up(struct bench *bench, struct bench_vm *vm);
/* Reserved and guarded, with that shape. */
void snapshot_guarded(struct bench *bench, struct bench_vm *vm);
void snapshot_pause(const struct bench_vm *vm);
void snapshot_resume(const struct bench_vm *vm);
/* The VMM writes its snapshot ("Full", "Diff") to the two places: the API's status. */
int snapshot_write_as(const struct bench_vm *vm, const char *type);
int snapshot_write(const struct bench_vm *vm); /* full */
/* All of it, from pause to resume, and PUBLISH. */
void snapshot_make(struct bench *bench, const struct bench_vm *vm, struct priv_published *ret);
enum error_code snapshot_launch(struct bench *bench, struct bench_vm *vm, const char *snapshot);
/* LAUNCH from it, load without running, CHECK; then runs, and its guest has said hello again. */
void snapshot_restore(struct bench *bench, struct bench_vm *vm, const char *snapshot);
/* Has the guest that was there before the snapshot an open ear? A fresh connection is answered. */
void snapshot_assert_alive(struct bench *bench, const struct bench_vm *vm);

/* The name of whatever lies in state/staging, or unpublished in state/snapshots; empty: nothing. */
void snapshot_rest(const struct bench *bench, char *out, size_t size);
/* A path beneath the VMM's root, as this process sees it. */
void snapshot_place(const struct bench_vm *vm, const char *name, char *out, size_t size);

#endif
