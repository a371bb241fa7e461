/*
 * What the files of store/ share. A `struct store` is one writing connection under a mutex and a
 * few reading ones; each operation borrows one, prepares its statements, finalizes them, but for
 * the few that are asked all the time, which their connection keeps.
 */
#ifndef MOTTE_STORE_INTERNAL_H
#define MOTTE_STORE_INTERNAL_H

#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

enum {
    STORE_READERS = 4,
    STORE_BUSY_MS = 2000,
    STORE_APPLICATION_ID = 0x6d6f7474,  /* "mott": tells our files from others */
    STORE_WAL_LIMIT = 16 * 1024 * 1024, /* what a checkpoint cuts the log back to */
    STORE_BALLAST = 8 * 1024 * 1024,    /* the log grows by a quarter of it for some 100 ends */
};

struct store {
    pthread_mutex_t writing; /* guards `busy` */
    pthread_cond_t written;
    bool busy;                   /* somebody has the next three */
    sqlite3 *writer;             /* owned */
    int ballast;                 /* owned */
    bool ballast_taken;          /* it has its size */
    atomic_uint_fast64_t moment; /* odd while a change is being committed */
    bool told;                   /* this change wrote events; under `busy` */
    pthread_mutex_t watching;    /* guards the next three */
    struct store_watch *watches; /* on the stacks of those who wait */
    bool unwatched;
    struct waker *listeners;
    pthread_mutex_t lock; /* guards the rest */
    struct store_quotas quotas;
    pthread_cond_t idle;
    sqlite3 *readers[STORE_READERS]; /* owned; the first `ready` are free; under `lock` */
    unsigned ready;
};

/* ---- connection.c ---- */

#define cleanup_sqlite cleanup(store_cleanup_sqlite)
#define cleanup_statement cleanup(store_cleanup_statement)
void store_cleanup_sqlite(sqlite3 **db);
void store_cleanup_statement(sqlite3_stmt **statement);
#define cleanup_kept cleanup(store_cleanup_kept)
void store_cleanup_kept(sqlite3_stmt **statement);

/* `path`: absolute, without links. Closing it leaves the log as it is (it may be that of a file which
 * we refuse, or which others use) until SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE is lifted. */
int store_connect(const char *path, sqlite3 **ret, struct error *err);
/* Turns SQLite's last failure on `db` into an error; `what` names the step. Returns -1. */
int store_fail(sqlite3 *db, int rc, const char *what, struct error *err);
int store_exec(sqlite3 *db, const char *sql, struct error *err);
int store_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret, struct error *err);
/* The same, but the connection keeps the statement until it is closed: to parse one costs more than
 * to run it. Declare it cleanup_kept, which readies it for the next; not while it is in use. */
int store_prepare_kept(sqlite3 *db, const char *sql, sqlite3_stmt **ret, struct error *err);
/* One step: 1 with a row, 0 at the end, -1. */
int store_step(sqlite3_stmt *statement, struct error *err);
/* First column of the first row of a query that always has one. */
int store_query_number(sqlite3 *db, const char *sql, int64_t *ret, struct error *err);
/* NULL binds NULL. `text` is borrowed until the statement is finalized. */
int store_bind_text(sqlite3_stmt *statement, int index, const char *text, struct error *err);
int store_bind_number(sqlite3_stmt *statement, int index, int64_t number, struct error *err);
/* BEGIN IMMEDIATE … COMMIT; store_rollback() may follow any failure. */
int store_begin(sqlite3 *db, struct error *err);
int store_commit(sqlite3 *db, struct error *err);
void store_rollback(sqlite3 *db);

/* ---- schema.c, migrate.c ---- */

extern const char *const store_migrations[]; /* [n] brings user_version n to n + 1 */
extern const int store_version;              /* how many there are */

/* Refuses what is damaged, newer or not ours; writes nothing. */
int store_check(sqlite3 *db, struct error *err);
/* Brings a checked file to store_version in one transaction. */
int store_migrate(sqlite3 *db, struct error *err);

/* ---- backup.c ---- */

/* A checked copy at `path`, which must not be there; one file without a log. On error nothing. */
int store_copy(sqlite3 *from, const char *path, struct error *err);
/* Where `db`, the file at `path`, has an older schema: a copy beside it, "motte.db.v2". */
int store_copy_before_migration(sqlite3 *db, const char *path, struct error *err);

/* ---- change.c ---- */

/* What a change does inside its transaction; maybe twice, of which the first time is undone. */
typedef int store_change_body(sqlite3 *db, void *context, struct error *err);
enum store_room {
    STORE_ROOM_NEW,     /* a new VM: not while the ballast is given up */
    STORE_ROOM_USUAL,   /* what there is */
    STORE_ROOM_LASTING, /* what a power cut must not undo: synced before it returns */
    STORE_ROOM_BOOT,    /* the same, and the ballast is given up for it */
    STORE_ROOM_END,     /* the end of a VM: the ballast is given up for it */
};
/* One transaction on the writing connection; all or nothing of what `body` does. Waits for other
 * writers, here and in other programs, for STORE_BUSY_MS in all. */
int store_change(struct store *store, enum store_room room, store_change_body *body, void *context,
                 struct error *err);

/* ---- ballast.c: inside a change, or before there are threads ---- */

/* A full disk is no error. */
int store_ballast_open(struct store *store, const char *dir, struct error *err);
/* ERR_STORE_FULL. */
int store_ballast_take(struct store *store, struct error *err);
/* True when there was one. */
bool store_ballast_drop(struct store *store);

/* ---- ring.c: inside a change ---- */

/* The statements of a ring of all with a ring of each owner in it. */
struct store_ring {
    const char *size;   /* entries */
    const char *insert; /* ?1: the owner; the rest is bound by who writes */
    const char *trim;   /* of owner ?1 all but the newest ?2 */
    const char *lose;   /* notes which is the last of the ?1 oldest of all, */
    const char *drop;   /* and what goes up to it */
    const char *resize; /* entries are ?1 now */
    int64_t own_max, max;
};
/* One batch's statements, and the size that the table then has. */
struct store_ring_writer {
    const struct store_ring *ring;
    sqlite3 *db;
    sqlite3_stmt *insert, *trim; /* the connection's */
    int64_t entries;
};
int store_ring_open(sqlite3 *db, const struct store_ring *ring, struct store_ring_writer *ret,
                    struct error *err);
int store_ring_add(struct store_ring_writer *writer, const char *owner, struct error *err);
int store_ring_finish(struct store_ring_writer *writer, struct error *err);
/* In any case. */
void store_ring_close(struct store_ring_writer *writer);

/* ---- audit.c, audit_read.c ---- */

/* Reads seq, wall_ms, instance, id, owner, kind, detail. */
int store_audit_read(sqlite3_stmt *statement, struct store_audit *ret, struct error *err);
/* Inside a change. */
int store_audit_put(sqlite3 *db, const char *instance, enum store_audit_kind kind,
                    const char *detail, struct error *err);

/* ---- watch.c ---- */

/* After a change: the VM's state may be another. NULL: wakes all. */
void store_news(struct store *store, const char *instance);
/* Above which no event of this inventory has a number; 0 where it cannot be read. */
int64_t store_events_last(sqlite3 *db);
/* Of a copy that takes an inventory's place: the next start begins above `last`, its own, too. */
int store_events_renew(sqlite3 *db, int64_t last, struct error *err);
/* After a change that wrote events. */
void store_event_news(struct store *store);
/* Has `store->told` say whether a change writes events. */
void store_event_notice(struct store *store);

/* ---- keys.c: inside a change ---- */

/* `made`: what the answer is of. NULL: nothing is to be kept. */
int store_keep(sqlite3 *db, const struct store_keep *keep, const void *made, struct error *err);
int store_keys_vm_runs(sqlite3 *db, const char *instance, struct error *err);
int store_keys_vm_ends(sqlite3 *db, const char *instance, struct error *err);

/* ---- snapshots.c ---- */

/* Inside a change: ERR_SNAPSHOT_UNKNOWN. owner NULL: any. */
int store_snapshot_known(sqlite3 *db, const char *owner, const char *id, struct error *err);

/* ---- quota.c ---- */

/* Inside a change that gives its owner this VM, or a read: ERR_CORDONED; of a caller's ERR_ID_TAKEN,
 * ERR_QUOTA. */
int store_admit_check(sqlite3 *db, const struct store_quota *quota, const struct store_vm *vm,
                      struct error *err);

/* ---- image_snapshots.c ---- */

/* Inside a change: it is the one that was used last. */
int store_image_snapshot_use(sqlite3 *db, const char *id, struct error *err);

/* ---- cordon.c ---- */

/* Inside a change or a read. */
int store_cordon_read(sqlite3 *db, struct store_cordon *ret, struct error *err);
/* ERR_CORDONED, with who set it; returns -1. */
int store_cordon_refuse(const struct store_cordon *cordon, struct error *err);

/* ---- row.c: structs to and from rows ---- */

enum store_kind { STORE_TEXT, STORE_BYTES, STORE_NUMBER };
struct store_column {
    const char *name;
    enum store_kind kind;
    size_t offset, size;
};
struct store_table {
    const char *what; /* "a VM" */
    const struct store_column *columns;
    size_t count, size; /* size: of the struct */
};
#define STORE_COLUMN(type, kind, member)                                                           \
    {#member, STORE_##kind, offsetof(type, member), sizeof(((type *)NULL)->member)},

/* The members that have a column of the same name, in the order of SELECT and INSERT. */
#define STORE_VM_COLUMNS(X)                                                                        \
    X(TEXT, instance)                                                                              \
    X(TEXT, id)                                                                                    \
    X(TEXT, owner)                                                                                 \
    X(NUMBER, state)                                                                               \
    X(TEXT, reason)                                                                                \
    X(TEXT, message)                                                                               \
    X(TEXT, image)                                                                                 \
    X(BYTES, image_digest)                                                                         \
    X(NUMBER, vcpus)                                                                               \
    X(NUMBER, memory_mib)                                                                          \
    X(NUMBER, disk_mib)                                                                            \
    X(TEXT, seccomp)                                                                               \
    X(TEXT, hypervisor)                                                                            \
    X(NUMBER, emulated)                                                                            \
    X(NUMBER, without)                                                                             \
    X(NUMBER, uid)                                                                                 \
    X(NUMBER, layout)                                                                              \
    X(TEXT, chain)                                                                                 \
    X(NUMBER, ttl_s)                                                                               \
    X(NUMBER, created_wall_ms)                                                                     \
    X(NUMBER, state_wall_ms)                                                                       \
    X(NUMBER, expires_boot_ms)                                                                     \
    X(NUMBER, expires_wall_ms)                                                                     \
    X(NUMBER, idle_s)                                                                              \
    X(NUMBER, idle_since_boot_ms)                                                                  \
    X(NUMBER, agent)                                                                               \
    X(NUMBER, on_unresponsive)                                                                     \
    X(TEXT, snapshot)                                                                              \
    X(NUMBER, purpose)                                                                             \
    X(NUMBER, source)                                                                              \
    X(TEXT, boot)                                                                                  \
    X(TEXT, labels)                                                                                \
    X(TEXT, steps)                                                                                 \
    X(TEXT, guest)

#define STORE_COLUMN_NAME(kind, member) ", " #member
#define STORE_COLUMN_MARK(kind, member) ", ?"
/* seq comes first and is not part of the struct. */
#define STORE_SELECT_VM "SELECT seq" STORE_VM_COLUMNS(STORE_COLUMN_NAME) " FROM vms"
#define STORE_INSERT_VM                                                                            \
    "INSERT INTO vms (seq" STORE_VM_COLUMNS(STORE_COLUMN_NAME) ")"                                 \
                                                               " VALUES (NULL" STORE_VM_COLUMNS(   \
                                                                   STORE_COLUMN_MARK) ")"

#define STORE_SNAPSHOT_COLUMNS(X)                                                                  \
    X(TEXT, id)                                                                                    \
    X(TEXT, owner)                                                                                 \
    X(TEXT, vm)                                                                                    \
    X(TEXT, instance)                                                                              \
    X(TEXT, image)                                                                                 \
    X(BYTES, image_digest)                                                                         \
    X(NUMBER, vcpus)                                                                               \
    X(NUMBER, memory_mib)                                                                          \
    X(NUMBER, disk_mib)                                                                            \
    X(TEXT, seccomp)                                                                               \
    X(TEXT, hypervisor)                                                                            \
    X(NUMBER, generation)                                                                          \
    X(NUMBER, bytes)                                                                               \
    X(NUMBER, created_wall_ms)                                                                     \
    X(NUMBER, kind)                                                                                \
    X(TEXT, labels)

#define STORE_SELECT_SNAPSHOT                                                                      \
    "SELECT seq" STORE_SNAPSHOT_COLUMNS(STORE_COLUMN_NAME) " FROM snapshots"
#define STORE_INSERT_SNAPSHOT                                                                      \
    "INSERT INTO snapshots (seq" STORE_SNAPSHOT_COLUMNS(                                           \
        STORE_COLUMN_NAME) ") VALUES (NULL" STORE_SNAPSHOT_COLUMNS(STORE_COLUMN_MARK) ")"

extern const struct store_table store_vm_table, store_snapshot_table;
/* `row`, `ret`: a struct of the table's type. */
int store_row_bind(sqlite3_stmt *statement, const struct store_table *table, const void *row,
                   struct error *err);
int store_row_read(sqlite3_stmt *statement, const struct store_table *table, void *ret,
                   struct error *err);

/* ---- pool.c ---- */

/* Waits until a reading connection is free. */
sqlite3 *store_reader_take(struct store *store);
void store_reader_give(struct store *store, sqlite3 *db);

/* ---- read.c ---- */

/* Of a row with `labels`; a NULL key: any, a NULL value: whatever the key has. json_each() compares
 * decoded text: a label holds whatever characters it likes. */
#define STORE_HAS_LABEL(key, value)                                                                \
    "(" key " IS NULL OR EXISTS (SELECT 1 FROM json_each("                                         \
    "   CASE WHEN json_valid(labels) THEN labels ELSE '{}' END) AS label"                          \
    "   WHERE label.key = " key " AND (" value " IS NULL"                                          \
    "     OR (label.type = 'text' AND label.value = " value "))))"

/* On a connection the caller holds. */
int store_find(sqlite3 *db, const char *owner, const char *id, struct store_vm *ret,
               struct error *err);
/* ERR_VM_AMBIGUOUS, -1 */
int store_refuse_ambiguous(const char *id, struct error *err);
int store_find_instance(sqlite3 *db, const char *instance, struct store_vm *ret, struct error *err);

#endif
