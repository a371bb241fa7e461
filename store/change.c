/* The four changes of a VM's life. Each is one transaction on the writing connection. */
#include "store/internal.h"

#include <time.h>

/* Who waits here waits for one that waits for another program: all of them for the same time, not
 * one after the other. (Not with pthread_mutex_clocklock, which ThreadSanitizer does not know.) */
static int begin_writing(struct store *store, struct error *err)
{
    int64_t deadline = clock_mono_ms() + STORE_BUSY_MS;
    const struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    int waited = 0;
    pthread_mutex_lock(&store->writing);
    while (store->busy && waited == 0)
        waited = pthread_cond_timedwait(&store->written, &store->writing, &until);
    bool mine = !store->busy;
    store->busy = true;
    pthread_mutex_unlock(&store->writing);
    if (!mine)
        return error_set(err, ERR_STORE_BUSY, 0, "the inventory was busy for %d ms: try again",
                         STORE_BUSY_MS);
    sqlite3_busy_timeout(store->writer, clock_left_ms(deadline));
    return 0;
}

static void end_writing(struct store *store)
{
    pthread_mutex_lock(&store->writing);
    store->busy = false;
    pthread_cond_signal(&store->written);
    pthread_mutex_unlock(&store->writing);
}

/* From when somebody could first read what is new, to when nobody can read what was, the moment is
 * odd. A commit that failed may have been seen, for all we know. */
static int commit(struct store *store, struct error *err)
{
    atomic_fetch_add(&store->moment, 1);
    int result = store_commit(store->writer, err);
    if (result < 0)
        store_rollback(store->writer);
    atomic_fetch_add(&store->moment, 1);
    return result;
}

static int transact(struct store *store, store_change_body *body, void *context, struct error *err)
{
    store->told = false;
    if (store_begin(store->writer, err) < 0)
        return -1;
    if (body(store->writer, context, err) == 0)
        return commit(store, err);
    store_rollback(store->writer);
    return -1;
}

uint64_t store_moment(struct store *store)
{
    uint64_t moment = atomic_load(&store->moment);
    return moment % 2 == 0 ? moment + 2 : 0;
}

int store_change(struct store *store, enum store_room room, store_change_body *body, void *context,
                 struct error *err)
{
    bool lasting = room == STORE_ROOM_LASTING || room == STORE_ROOM_BOOT;
    bool ends = room == STORE_ROOM_END || room == STORE_ROOM_BOOT;
    if (begin_writing(store, err) < 0)
        return -1;
    int result = room == STORE_ROOM_NEW ? store_ballast_take(store, err) : 0;
    if (result == 0 && lasting)
        result = store_exec(store->writer, "PRAGMA synchronous = FULL", err);
    if (result == 0)
        result = transact(store, body, context, err);
    if (result < 0 && err->code == ERR_STORE_FULL && ends && store_ballast_drop(store)) {
        *err = (struct error){0};
        result = transact(store, body, context, err);
    }
    if (lasting) {
        struct error ignored = {0}; /* the next commits would only be slower */
        (void)store_exec(store->writer, "PRAGMA synchronous = NORMAL", &ignored);
    }
    bool told = result == 0 && store->told;
    end_writing(store);
    if (told)
        store_event_news(store);
    return result;
}

static int run(sqlite3_stmt *statement, struct error *err)
{
    return store_step(statement, err) < 0 ? -1 : 0;
}

/* Its detail is what `sql` makes of two texts: SQLite quotes them. */
static int audit(sqlite3 *db, const char *instance, enum store_audit_kind kind, const char *sql,
                 const char *first, const char *second, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, first, err) < 0 ||
        store_bind_text(statement, 2, second, err) < 0 || store_step(statement, err) < 0)
        return -1;
    return store_audit_put(db, instance, kind, (const char *)sqlite3_column_text(statement, 0),
                           err);
}

/* ---- insert ---- */

struct insertion {
    const struct store_vm *vm;
    struct store_quota quota;
};

static int insert(sqlite3 *db, void *context, struct error *err)
{
    const struct insertion *insertion = context;
    const struct store_vm *vm = insertion->vm;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_admit_check(db, &insertion->quota, vm, err) < 0 ||
        (vm->snapshot[0] != '\0' && store_snapshot_known(db, vm->owner, vm->snapshot, err) < 0) ||
        store_prepare(db, STORE_INSERT_VM, &statement, err) < 0 ||
        store_row_bind(statement, &store_vm_table, vm, err) < 0 || run(statement, err) < 0)
        return -1;
    return audit(db, vm->instance, STORE_AUDIT_CREATED,
                 "SELECT json_object('hypervisor', ?1, 'seccomp', ?2)", vm->hypervisor, vm->seccomp,
                 err);
}

int store_vm_insert(struct store *store, const struct store_vm *vm, struct error *err)
{
    struct store_vm row = *vm;
    row.state = STORE_CREATING;
    if (row.purpose != STORE_FOR_CALLER) {
        snprintf(row.owner, sizeof(row.owner), "%s", STORE_OWNER_ITSELF);
        snprintf(row.id, sizeof(row.id), "%s", row.instance);
    }
    struct insertion insertion = {.vm = &row, .quota = store_quota_of(store, row.owner)};
    return store_change(store, STORE_ROOM_NEW, insert, &insertion, err);
}

/* ---- running ---- */

static int write_running(sqlite3 *db, const struct store_vm *vm, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE vms SET state = ?2, state_wall_ms = ?3, expires_boot_ms = ?4,"
                      " steps = ?5, guest = ?6, expires_wall_ms = ?8, idle_since_boot_ms = ?9,"
                      " agent = ?10, source = ?11, reason = '', message = ''"
                      " WHERE instance = ?1 AND state = ?7",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_number(statement, 2, STORE_RUNNING, err) < 0 ||
        store_bind_number(statement, 3, vm->state_wall_ms, err) < 0 ||
        store_bind_number(statement, 4, vm->expires_boot_ms, err) < 0 ||
        store_bind_text(statement, 5, vm->steps, err) < 0 ||
        store_bind_text(statement, 6, vm->guest, err) < 0 ||
        store_bind_number(statement, 7, STORE_CREATING, err) < 0 ||
        store_bind_number(statement, 8, vm->expires_wall_ms, err) < 0 ||
        store_bind_number(statement, 9, vm->idle_since_boot_ms, err) < 0 ||
        store_bind_number(statement, 10, vm->agent, err) < 0 ||
        store_bind_number(statement, 11, vm->source, err) < 0 || run(statement, err) < 0)
        return -1;
    return sqlite3_changes(db);
}

static int running(sqlite3 *db, void *context, struct error *err)
{
    const struct store_vm *vm = context;
    int changes = write_running(db, vm, err);
    if (changes < 0)
        return -1;
    if (changes == 0)
        return error_set(err, ERR_CANCELLED, 0, "VM `%s` was deleted while it was made", vm->id);
    if (store_keep(db, vm->keep, vm, err) < 0 || store_keys_vm_runs(db, vm->instance, err) < 0)
        return -1;
    return store_audit_put(db, vm->instance, STORE_AUDIT_RUNNING, NULL, err);
}

int store_vm_running(struct store *store, const struct store_vm *vm, struct error *err)
{
    struct store_vm row = *vm;
    if (store_change(store, STORE_ROOM_USUAL, running, &row, err) < 0)
        return -1;
    store_news(store, vm->instance);
    return 0;
}

/* ---- deleting ---- */

struct deletion {
    const char *owner, *id;
    struct store_vm vm;
};

static int deleting(sqlite3 *db, void *context, struct error *err)
{
    struct deletion *deletion = context;
    struct store_vm *vm = &deletion->vm;
    if (store_find(db, deletion->owner, deletion->id, vm, err) < 0)
        return -1;
    if (vm->state == STORE_DELETING)
        return 0;
    vm->state = STORE_DELETING;
    vm->state_wall_ms = clock_wall_ms();
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "UPDATE vms SET state = ?2, state_wall_ms = ?3 WHERE instance = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_number(statement, 2, vm->state, err) < 0 ||
        store_bind_number(statement, 3, vm->state_wall_ms, err) < 0)
        return -1;
    return run(statement, err);
}

int store_vm_deleting(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                      struct error *err)
{
    struct deletion deletion = {.owner = owner, .id = id};
    if (store_change(store, STORE_ROOM_END, deleting, &deletion, err) < 0)
        return -1;
    *ret = deletion.vm;
    store_news(store, ret->instance);
    return 0;
}

/* ---- end ---- */

struct ending {
    const char *instance, *reason, *message, *console;
    size_t console_len;
    enum store_state state;
};

/* An instance id is never reused; OR REPLACE so that even a broken promise lets a VM end. */
static int certify(sqlite3 *db, const struct ending *ending, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "INSERT OR REPLACE INTO certificates (seq, instance, id, owner, state,"
                      " reason, message, console, image, image_digest, hypervisor, without,"
                      " created_wall_ms, ended_wall_ms, purpose, ended_up_ms)"
                      " SELECT seq, instance, id, owner, ?2, ?3, ?4, ?5, image, image_digest,"
                      " hypervisor, without, created_wall_ms, ?6, purpose,"
                      " (SELECT up_ms FROM clock)"
                      " FROM vms WHERE instance = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, ending->instance, err) < 0 ||
        store_bind_number(statement, 2, ending->state, err) < 0 ||
        store_bind_text(statement, 3, ending->reason, err) < 0 ||
        store_bind_text(statement, 4, ending->message, err) < 0 ||
        store_bind_number(statement, 6, clock_wall_ms(), err) < 0)
        return -1;
    int rc =
        sqlite3_bind_blob(statement, 5, ending->console, (int)ending->console_len, SQLITE_STATIC);
    return rc == SQLITE_OK ? run(statement, err) : store_fail(db, rc, "binding", err);
}

static int end(sqlite3 *db, void *context, struct error *err)
{
    const struct ending *ending = context;
    cleanup_statement sqlite3_stmt *removal = NULL, *pruning = NULL;
    if (certify(db, ending, err) < 0)
        return -1;
    if (sqlite3_changes(db) == 0) /* unknown or ended before */
        return 0;
    if (store_prepare(db, "DELETE FROM vms WHERE instance = ?1", &removal, err) < 0 ||
        store_bind_text(removal, 1, ending->instance, err) < 0 || run(removal, err) < 0 ||
        store_prepare(db,
                      "DELETE FROM certificates"
                      " WHERE number <= (SELECT max(number) FROM certificates) - ?1",
                      &pruning, err) < 0 ||
        store_bind_number(pruning, 1, STORE_CERTIFICATES_MAX, err) < 0)
        return -1;
    if (run(pruning, err) < 0 || store_keys_vm_ends(db, ending->instance, err) < 0)
        return -1;
    return audit(db, ending->instance, STORE_AUDIT_ENDED,
                 "SELECT json_object('state', ?1, 'reason', ?2)", store_state_name(ending->state),
                 ending->reason, err);
}

int store_vm_end(struct store *store, const char *instance, enum store_state state,
                 const char *reason, const char *message, const char *console, struct error *err)
{
    if (state < STORE_FAILED || state > STORE_LOST)
        return error_set(err, ERR_INTERNAL, 0, "a VM cannot end as %s", store_state_name(state));
    char short_reason[STORE_REASON_MAX], short_message[ERROR_MESSAGE_MAX];
    snprintf(short_reason, sizeof(short_reason), "%s", reason);
    snprintf(short_message, sizeof(short_message), "%s", message == NULL ? "" : message);
    if (console == NULL)
        console = "";
    size_t len = strlen(console), skip = len > STORE_CONSOLE_MAX ? len - STORE_CONSOLE_MAX : 0;
    struct ending ending = {.instance = instance,
                            .reason = short_reason,
                            .message = short_message,
                            .console = console + skip, /* the newest bytes */
                            .console_len = len - skip,
                            .state = state};
    if (store_change(store, STORE_ROOM_END, end, &ending, err) < 0)
        return -1;
    store_news(store, instance);
    return 0;
}
