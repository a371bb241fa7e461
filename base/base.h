/*
 * base: what every folder of Motte stands on. Errors by value, ownership by attribute, bounded
 * buffers, clocks, digests, identifiers, files opened beneath a directory, `key = value` files.
 *
 * Everything here is safe to call from any thread on objects that are not shared; nothing here logs
 * (but log_*), exits, or keeps global state (but the log's level and format, set by main).
 */
#ifndef MOTTE_BASE_H
#define MOTTE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* ---- errors -------------------------------------------------------------------------------- */

/*
 * Every failure a user can see. error_code_name() is the `code` of a problem+json answer and of a
 * VM's record: stable, never renamed. HTTP status and remediation stand in api/problem.c.
 */
#define ERROR_CODES(X)                                                                             \
    X(INTERNAL, "internal")                                                                        \
    X(NO_MEMORY, "no_memory")                                                                      \
    X(SYSTEM, "system_call_failed")                                                                \
    X(CONFIG, "bad_configuration")                                                                 \
    X(JSON, "invalid_json")                                                                        \
    X(FIELD_UNKNOWN, "unknown_field")                                                              \
    X(FIELD_TYPE, "wrong_type")                                                                    \
    X(FIELD_RANGE, "out_of_range")                                                                 \
    X(FIELD_MISSING, "missing_field")                                                              \
    X(FIELD_VALUE, "invalid_value")                                                                \
    X(ID_INVALID, "invalid_id")                                                                    \
    X(NETWORKING_REFUSED, "networking_refused")                                                    \
    X(BODY_TOO_LARGE, "body_too_large")                                                            \
    X(MEDIA_TYPE, "unsupported_media_type")                                                        \
    X(BAD_REQUEST, "bad_request")                                                                  \
    X(TARGET_TOO_LONG, "uri_too_long")                                                             \
    X(QUERY, "invalid_query")                                                                      \
    X(ROUTE_UNKNOWN, "route_not_found")                                                            \
    X(METHOD, "method_not_allowed")                                                                \
    X(UNAUTHORIZED, "unauthorized")                                                                \
    X(FORBIDDEN, "forbidden")                                                                      \
    X(VM_UNKNOWN, "vm_not_found")                                                                  \
    X(VM_GONE, "vm_gone")                                                                          \
    X(VM_NOT_RUNNING, "vm_not_running")                                                            \
    X(VM_PAUSED, "vm_paused")                                                                      \
    X(ID_TAKEN, "id_taken")                                                                        \
    X(IMAGE_UNKNOWN, "image_not_found")                                                            \
    X(IMAGE_CHANGED, "image_changed")                                                              \
    X(SECCOMP_LEVEL, "seccomp_level_refused")                                                      \
    X(CAPACITY, "capacity_exhausted")                                                              \
    X(BUSY, "busy")                                                                                \
    X(SHUTTING_DOWN, "shutting_down")                                                              \
    X(CORDONED, "cordoned")                                                                        \
    X(CANCELLED, "cancelled")                                                                      \
    X(HYPERVISOR_MISSING, "no_hypervisor")                                                         \
    X(HYPERVISOR, "hypervisor_failed")                                                             \
    X(HYPERVISOR_TIMEOUT, "hypervisor_timeout")                                                    \
    X(LAUNCH, "launch_failed")                                                                     \
    X(VMM_EXITED, "vmm_exited")                                                                    \
    X(GUARD, "guard_failed")                                                                       \
    X(CGROUP, "cgroup_failed")                                                                     \
    X(FIREWALL_PRIVILEGE, "firewall_no_privilege")                                                 \
    X(FIREWALL_LOCK, "firewall_lock_timeout")                                                      \
    X(FIREWALL_TABLE, "firewall_no_table")                                                         \
    X(FIREWALL_COMMIT, "firewall_commit_refused")                                                  \
    X(FIREWALL_DRIFT, "firewall_out_of_sync")                                                      \
    X(BOOT_TIMEOUT, "boot_timeout")                                                                \
    X(GUEST_PROTOCOL, "guest_protocol")                                                            \
    X(GUEST_CLOSED, "guest_closed")                                                                \
    X(GUEST_TIMEOUT, "guest_unresponsive")                                                         \
    X(GUEST_REFUSED, "guest_refused")                                                              \
    X(EXEC_TIMEOUT, "exec_timeout")                                                                \
    X(STORE, "store_failed")                                                                       \
    X(STORE_BUSY, "store_busy")                                                                    \
    X(STORE_FULL, "store_full")                                                                    \
    X(STORE_NEWER, "store_newer")                                                                  \
    X(NOT_FOUND, "not_found")                                                                      \
    X(PRIV_REFUSED, "root_half_refused")                                                           \
    X(PRIV_LOST, "root_half_lost")

enum error_code {
    ERR_NONE = 0,
#define X(name, text) ERR_##name,
    ERROR_CODES(X)
#undef X
        ERR_COUNT
};

enum { ERROR_MESSAGE_MAX = 256 };

/* Lives on the caller's stack, `struct error err = {0}`. `sys` is an errno or 0. `msg` is a
 * sentence for the user: what happened and, where we know, what to do. */
struct error {
    enum error_code code;
    int sys;
    char msg[ERROR_MESSAGE_MAX];
};

/* Set an error once: asserts that none is set. Appends ": strerror(sys)" when sys != 0. Returns -1,
 * so that `return error_set(err, …)` reads well. `err` must not be NULL. */
int error_set(struct error *err, enum error_code code, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Put context in front of a set error: "fmt: old message". Returns -1. */
int error_wrap(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Did this program, or its host, lack something (memory, descriptors, room)? Then the error says
 * nothing about what was asked for. */
bool error_is_shortage(const struct error *err);

/* "vm_not_found" for ERR_VM_UNKNOWN; "none" for ERR_NONE; never NULL. */
const char *error_code_name(enum error_code code);

/* ---- ownership ----------------------------------------------------------------------------- */

/* `cleanup_free char *s = NULL;` frees at the end of the scope; TAKE_PTR/TAKE_FD hand it on. All of
 * these keep errno. */
#define cleanup(function) __attribute__((cleanup(function)))
#define cleanup_free cleanup(cleanup_free_func)
#define cleanup_close cleanup(cleanup_close_func)
#define cleanup_file cleanup(cleanup_file_func)
void cleanup_free_func(void *pointer_to_pointer);
void cleanup_close_func(const int *fd);
void cleanup_file_func(FILE **file);

#define TAKE_PTR(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(p) taken_ = (p);                                                                \
        (p) = NULL;                                                                                \
        taken_;                                                                                    \
    })
#define TAKE_FD(fd)                                                                                \
    __extension__({                                                                                \
        int taken_ = (fd);                                                                         \
        (fd) = -1;                                                                                 \
        taken_;                                                                                    \
    })

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* ---- log: one line on stderr; programs only, libraries return errors ------------------------ */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Once, by main, before threads. `program` must outlive everything. */
void log_open(const char *program, enum log_level level);
void log_set_level(enum log_level level); /* at any time */
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* ---- buf: growing bytes with a ceiling ------------------------------------------------------ */

/* Zero-initialise, set `max`; release with buf_release (or cleanup(buf_release)). `data` is always
 * followed by a NUL that `len` does not count. */
struct buf {
    char *data; /* owned; NULL while empty */
    size_t len, cap, max;
};
/* All return 0, or -1 when the ceiling or memory ends (the buffer is then unchanged). */
int buf_append(struct buf *buf, const void *data, size_t len);
int buf_printf(struct buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_release(struct buf *buf);

/* ---- ring: the last N bytes of a stream (console tails) ------------------------------------- */

struct ring;                        /* opaque; not thread-safe */
struct ring *ring_new(size_t size); /* NULL when out of memory */
void ring_free(struct ring *ring);
void ring_write(struct ring *ring, const void *data, size_t len);
/* Copies up to `size - 1` of the newest bytes, oldest first, and a NUL; returns their count. */
size_t ring_read(const struct ring *ring, char *out, size_t size);

/* ---- clock ---------------------------------------------------------------------------------- */

int64_t clock_mono_ms(void); /* deadlines */
int64_t clock_mono_us(void); /* durations */
int64_t clock_boot_ms(void); /* goes on while the host sleeps: TTLs */
int64_t clock_wall_ms(void); /* display only */
/* "2026-01-31T12:00:00.123Z" */
void clock_format(int64_t wall_ms, char out[static 25]);
/* Milliseconds left until a clock_mono_ms() deadline, for poll(): 0 if past, at most INT_MAX. */
int clock_left_ms(int64_t deadline_ms);

/* ---- hash ----------------------------------------------------------------------------------- */

enum { HASH_SIZE = 32, HASH_HEX_SIZE = 65 }; /* SHA-256; hex with NUL */
void hash_sha256(const void *data, size_t len, uint8_t out[static HASH_SIZE]);
int hash_sha256_fd(int fd, uint8_t out[static HASH_SIZE], struct error *err); /* from offset 0 */
void hash_to_hex(const uint8_t *bytes, size_t len, char *out /* 2*len + 1 */);
int hash_from_hex(const char *hex, uint8_t *out, size_t len); /* -1 unless exactly 2*len digits */

/* ---- identifiers ---------------------------------------------------------------------------- */

enum {
    ID_INSTANCE_LEN = 20,  /* [a-z2-7]; made by the root half, never reused */
    ID_INSTANCE_SIZE = 24, /* with NUL and padding, as it stands in messages and records */
    ID_VM_MAX = 64,        /* a user's label: [A-Za-z0-9_-]{1,64} (R10) */
    ID_NAME_MAX = 32,      /* images, kernels: [a-z0-9][a-z0-9._-]{0,31} */
    ID_BOOT_SIZE = 37,     /* /proc/sys/kernel/random/boot_id with NUL */
};
bool id_instance_valid(const char *id);
bool id_vm_valid(const char *id, size_t len); /* len = strlen; a NUL inside makes it invalid */
bool id_name_valid(const char *name);
int id_instance_make(char out[static ID_INSTANCE_SIZE], struct error *err);
int id_boot_read(char out[static ID_BOOT_SIZE], struct error *err);

/* ---- files ---------------------------------------------------------------------------------- */

/* openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS and O_CLOEXEC. Returns
 * the descriptor, or -1 with errno. */
int fs_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
/* Whole file into a buffer, NUL-terminated; refuses more than size - 1 bytes. Returns length or -1
 * with errno (EFBIG). Works for /proc and cgroup files. */
ssize_t fs_read_at(int dirfd, const char *path, char *out, size_t size);
/* One write(2) into an existing file (cgroup and proc style). 0 or -1 with errno. */
int fs_write_at(int dirfd, const char *path, const char *text);
/* Write `path`.tmp, fsync, rename. 0 or -1 with errno. */
int fs_replace_at(int dirfd, const char *path, const void *data, size_t len, mode_t mode);
/* mkdir -p of an absolute path, no symlink followed in the last component. 0 or -1 with errno. */
int fs_mkdir_p(const char *path, mode_t mode);
/* Remove name and all below it, beneath dirfd, without following links or leaving the file system.
 * Gone already is success. 0 or -1 with errno. */
int fs_remove_tree(int dirfd, const char *name);
/* write(2) until done. 0 or -1 with errno. */
int fs_write_all(int fd, const void *data, size_t len);

/* ---- kv: `key = value` files, '#' comments, blank lines ------------------------------------- */

/* Called per pair, both trimmed and NUL-terminated (borrowed). Return 0 to go on, -1 with err set
 * to stop. */
typedef int kv_handler(void *context, const char *key, const char *value, struct error *err);
/* Parses text (modified in place). `where` names it in messages. 0 or -1. */
int kv_parse(char *text, const char *where, kv_handler *handler, void *context, struct error *err);
/* Decimal without sign or junk, within [min, max]. 0 or -1 with a message that names `key`. */
int kv_number(const char *key, const char *value, uint64_t min, uint64_t max, uint64_t *ret,
              struct error *err);

#endif
