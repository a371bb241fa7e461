/*
 * base: what every folder of Motte stands on. Errors by value, ownership by attribute, bounded
 * buffers, clocks, digests, identifiers, files opened beneath a directory, `key = value` files, callers'
 * tokens.
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
    X(VM_AMBIGUOUS, "vm_ambiguous")                                                                \
    X(VM_NOT_RUNNING, "vm_not_running")                                                            \
    X(VM_PAUSED, "vm_paused")                                                                      \
    X(SNAPSHOT_UNKNOWN, "snapshot_not_found")                                                      \
    X(SNAPSHOT_IN_USE, "snapshot_in_use")                                                          \
    X(SNAPSHOT_BUSY, "snapshot_in_progress")                                                       \
    X(KEY_BUSY, "idempotency_key_in_use")                                                          \
    X(KEY_REUSED, "idempotency_key_reused")                                                        \
    X(KEY_LOST, "idempotency_answer_lost")                                                         \
    X(ID_TAKEN, "id_taken")                                                                        \
    X(IMAGE_UNKNOWN, "image_not_found")                                                            \
    X(IMAGE_CHANGED, "image_changed")                                                              \
    X(SECCOMP_LEVEL, "seccomp_level_refused")                                                      \
    X(SNAPSHOT_MISMATCH, "snapshot_mismatch")                                                      \
    X(SNAPSHOT_DAMAGED, "snapshot_damaged")                                                        \
    X(DISK_FULL, "disk_full")                                                                      \
    X(CAPACITY, "capacity_exhausted")                                                              \
    X(QUOTA, "quota_exceeded")                                                                     \
    X(RATE, "rate_limited")                                                                        \
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
    X(EXEC_UNKNOWN, "exec_not_found")                                                              \
    X(EXEC_LOST, "exec_lost")                                                                      \
    X(EXEC_ENDED, "exec_ended")                                                                    \
    X(EXEC_INPUT, "exec_stdin_conflict")                                                           \
    X(EXEC_NO_TERMINAL, "exec_no_terminal")                                                        \
    X(FILE_UNKNOWN, "file_not_found")                                                              \
    X(GUEST_FULL, "guest_full")                                                                    \
    X(ARCHIVE, "archive_invalid")                                                                  \
    X(RANGE, "range_not_satisfiable")                                                              \
    X(DIGEST, "digest_mismatch")                                                                   \
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
/* LOG_JSON: an object a line, with time, level, program, message, and the line's fields. */
enum log_format { LOG_TEXT, LOG_JSON };

enum { LOG_REQUEST_SIZE = 17 }; /* 16 hex digits and NUL */

/* Once, by main, before threads. `program` must outlive everything. */
void log_open(const char *program, enum log_level level, enum log_format format);
void log_set_level(enum log_level level); /* at any time */
/* What the calling thread works on: `request_id` of each of its lines, until NULL. Copied. */
void log_set_request(const char *request_id);
const char *log_request_id(void); /* of the calling thread; "": none */

/* A value beside the message. As text it stands as ` name=value` behind the message, unless that tells
 * it already; in JSON it is a member, a number where the value is one. NULL: there is none. */
struct log_field {
    const char *name, *value;
    bool told, number;
};
/* A line has at most 2 KiB: a longer message is cut, a field that does not fit is left out. Whatever
 * is not printable comes as `?`; in JSON whatever is not ASCII. */
void log_fields(enum log_level level, const char *message, const struct log_field *fields,
                size_t count);
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
/* Without memory for more than was ever kept, what comes is not. */
void ring_write(struct ring *ring, const void *data, size_t len);
/* Copies up to `size - 1` of the newest bytes, oldest first, and a NUL; returns their count. */
size_t ring_read(const struct ring *ring, char *out, size_t size);
/* Keeps `size` bytes from now on, if that is more. False when out of memory: it is as it was. */
bool ring_grow(struct ring *ring, size_t size);
/* How many bytes were ever written: the place of the next one. */
uint64_t ring_end(const struct ring *ring);
/* Copies up to `size` bytes from the place *at on, which moves past them; returns their count. What
 * is not kept any more is passed over: then *at moves to the oldest byte there is, and nothing is
 * copied. */
size_t ring_read_on(const struct ring *ring, uint64_t *at, char *out, size_t size);

/* ---- waker: who waits for news without a thread ---------------------------------------------- */

/* Stands in at most one list, which belongs to what the news is of, as does the lock that guards it
 * and both links. `wake` is called with that lock held, once for each time it was added: it must not
 * block, nor call back. */
struct waker {
    void (*wake)(struct waker *waker);
    struct waker *next, **link; /* link NULL: in no list */
};
void waker_add(struct waker **list, struct waker *waker); /* already in it: nothing happens */
void waker_remove(struct waker *waker);                   /* in none: nothing happens */
void waker_wake_all(struct waker **list);                 /* the list is then empty */

/* ---- share: what one owner may have of what all have ----------------------------------------- */

/* Whether one who has `own` of the `all` that are taken of `max` may have one more: as long as he has
 * less than is free. So one alone gets half, and however much n of them take, each has 1/(n+1) and as
 * much is left for who comes next. */
static inline bool share_admits(unsigned own, unsigned all, unsigned max)
{
    return all < max && own < max - all;
}

/* ---- clock ---------------------------------------------------------------------------------- */

int64_t clock_mono_ms(void); /* deadlines */
int64_t clock_mono_us(void); /* durations */
int64_t clock_boot_ms(void); /* goes on while the host sleeps: TTLs */
int64_t clock_wall_ms(void); /* display only */
/* "2026-01-31T12:00:00.123Z" */
void clock_format(int64_t wall_ms, char out[static 25]);
/* Milliseconds left until a clock_mono_ms() deadline, for poll(): 0 if past, at most INT_MAX. */
int clock_left_ms(int64_t deadline_ms);
/* The calling thread's time slice, inherited by its threads and children; 0: the kernel's own. With
 * a shorter one than others have it waits less when it wakes, and runs no more than they
 * altogether. Linux before 6.12 takes it and ignores it. A real-time policy, which its operator
 * chose, and the nice value stay. -1 with errno. System calls only. */
int clock_slice(uint64_t ns);

/* ---- hash ----------------------------------------------------------------------------------- */

enum { HASH_SIZE = 32, HASH_HEX_SIZE = 65 }; /* SHA-256; hex with NUL */
enum { HASH_PAGE = 4096 };
void hash_sha256(const void *data, size_t len, uint8_t out[static HASH_SIZE]);
int hash_sha256_fd(int fd, uint8_t out[static HASH_SIZE], struct error *err); /* from offset 0 */
/* For sparse files, in time that follows what is in them: SHA-256 over each page of 4 KiB that is not
 * all zeros, its number before it, and at the end the file's size (both 8 bytes, little-endian). So
 * holes and zeros are the same. `go_on` (or NULL) is asked now and then; -1 with err set ends it. */
typedef int hash_go_on(void *context, struct error *err);
int hash_pages_fd(int fd, hash_go_on *go_on, void *context, uint8_t out[static HASH_SIZE],
                  struct error *err);
/* In pieces. NULL: out of memory. */
struct hash;
struct hash *hash_new(void);
void hash_add(struct hash *hash, const void *data, size_t len);
void hash_end(const struct hash *hash, uint8_t out[static HASH_SIZE]);
void hash_free(struct hash *hash);
bool hash_page_is_zero(const uint8_t *data, size_t len);
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

/* ---- tokens: `NAME = ROLE TENANT sha256:DIGEST [rate=N]` lines --------------------------------- */

enum { TOKENS_MAX = 256, TOKENS_FILE_MAX = 131072 /* bytes */, TOKEN_RATE_MAX = 1000000 };

/* Each may what those before it may. */
enum token_role {
    TOKEN_READ,    /* look at what is the tenant's */
    TOKEN_OPERATE, /* and change it */
    TOKEN_ADMIN,   /* that of all tenants, and the host's */
};
const char *token_role_name(enum token_role role);
int token_role_parse(const char *name, enum token_role *ret, struct error *err);

/* Only the secret's digest is kept: 256 random bits need no salt and no slow hash. */
struct token {
    char name[ID_NAME_MAX + 1];   /* whose it is: in logs; not secret */
    char tenant[ID_NAME_MAX + 1]; /* the owner of what is made with it */
    enum token_role role;
    uint8_t digest[HASH_SIZE]; /* SHA-256 of the secret */
    uint32_t rate;             /* requests a second; 0: any number */
};
struct token_list {
    struct token tokens[TOKENS_MAX];
    size_t count;
};
/* `text` is modified. Names and digests are there once. ERR_CONFIG; no message has more of a line
 * than its name. */
int token_list_parse(char *text, struct token_list *ret, struct error *err);
/* A name as id_name_valid has it, but `root`, who is the kernel's to name. ERR_CONFIG. */
int token_name_check(const char *what, const char *name, struct error *err);
/* Appends its line. 0 or -1, as buf_printf. */
int token_write(const struct token *token, struct buf *out);
/* Takes the same time wherever they differ. */
bool token_matches(const struct token *token, const uint8_t digest[static HASH_SIZE]);

#endif
