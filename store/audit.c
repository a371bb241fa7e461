/* What happened to a VM that matters for its isolation: a ring per VM inside a ring of all. */
#include "store/internal.h"

static const char *const kinds[] = {
    [STORE_AUDIT_CREATED] = "created",
    [STORE_AUDIT_GUARDS_CHECKED] = "guards_checked",
    [STORE_AUDIT_RUNNING] = "running",
    [STORE_AUDIT_ADOPTED] = "adopted",
    [STORE_AUDIT_GUARD_WRONG] = "guard_wrong",
    [STORE_AUDIT_GUEST_PROTOCOL] = "guest_protocol",
    [STORE_AUDIT_SECCOMP_VIOLATION] = "seccomp_violation",
    [STORE_AUDIT_VMM_EXITED] = "vmm_exited",
    [STORE_AUDIT_ENDED] = "ended",
    [STORE_AUDIT_UNRESPONSIVE] = "unresponsive",
    [STORE_AUDIT_RESPONSIVE] = "responsive",
    [STORE_AUDIT_PAUSED] = "paused",
    [STORE_AUDIT_RESUMED] = "resumed",
};

const char *store_audit_kind_name(enum store_audit_kind kind)
{
    return kind >= STORE_AUDIT_CREATED && kind < (int)COUNT_OF(kinds) ? kinds[kind] : "unknown";
}

/* ---- writing ---- */

/* One batch's statements, prepared once, and the size that the table then has. */
struct writer {
    sqlite3 *db;
    sqlite3_stmt *insert, *trim; /* owned */
    int64_t entries;
};

static void cleanup_writer(struct writer *writer)
{
    store_cleanup_statement(&writer->insert);
    store_cleanup_statement(&writer->trim);
}

/* Whose VM it is the inventory knows better than the caller. Neither seq nor a VM's own number is
 * ever used again, because the newest entry is never the one that goes. */
static const char insert_sql[] =
    "INSERT INTO audit (wall_ms, instance, number, id, owner, kind, detail)"
    " SELECT ?2, ?1, 1 + ifnull((SELECT max(number) FROM audit WHERE instance = ?1), 0),"
    " id, owner, ?3, ?4 FROM"
    " (SELECT id, owner FROM vms WHERE instance = ?1"
    "  UNION ALL SELECT id, owner FROM certificates WHERE instance = ?1) LIMIT 1";
static const char trim_sql[] = "DELETE FROM audit WHERE instance = ?1 AND number <="
                               " (SELECT max(number) FROM audit WHERE instance = ?1) - ?2";

static int writer_open(sqlite3 *db, struct writer *ret, struct error *err)
{
    ret->db = db;
    if (store_query_number(db, "SELECT entries FROM audit_size", &ret->entries, err) < 0 ||
        store_prepare(db, insert_sql, &ret->insert, err) < 0 ||
        store_prepare(db, trim_sql, &ret->trim, err) < 0)
        return -1;
    return store_bind_number(ret->trim, 2, STORE_AUDIT_VM_MAX, err);
}

/* To its end, and ready for the next entry. Counts rows that came or went. */
static int run(sqlite3_stmt *statement, int *ret_changes, struct error *err)
{
    int result = store_step(statement, err);
    *ret_changes = sqlite3_changes(sqlite3_db_handle(statement));
    sqlite3_reset(statement);
    return result;
}

/* A VM's own oldest entry makes room for its newest: one that fills its ring takes nothing from the
 * others. */
static int add(struct writer *writer, const struct store_audit_new *entry, struct error *err)
{
    const char *detail = entry->detail == NULL ? "{}" : entry->detail;
    int came = 0, went = 0;
    if (strlen(detail) >= STORE_AUDIT_DETAIL_SIZE)
        return error_set(err, ERR_INTERNAL, 0, "the detail of an audit entry is too long");
    if (store_bind_text(writer->insert, 1, entry->instance, err) < 0 ||
        store_bind_number(writer->insert, 2, clock_wall_ms(), err) < 0 ||
        store_bind_number(writer->insert, 3, entry->kind, err) < 0 ||
        store_bind_text(writer->insert, 4, detail, err) < 0 ||
        store_bind_text(writer->trim, 1, entry->instance, err) < 0 ||
        run(writer->insert, &came, err) < 0 || run(writer->trim, &went, err) < 0)
        return -1;
    writer->entries += came - went;
    return 0;
}

static int number(sqlite3 *db, const char *sql, int64_t number, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, sql, &statement, err) < 0 ||
        store_bind_number(statement, 1, number, err) < 0)
        return -1;
    return store_step(statement, err);
}

/* The oldest of all go when there are too many. The size is kept, since counting would cost more
 * than all else. */
static int writer_finish(struct writer *writer, struct error *err)
{
    int64_t excess = writer->entries - STORE_AUDIT_MAX;
    if (excess > 0 &&
        number(writer->db,
               "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit ORDER BY seq LIMIT ?1)",
               excess, err) < 0)
        return -1;
    return number(writer->db, "UPDATE audit_size SET entries = ?1",
                  excess > 0 ? STORE_AUDIT_MAX : writer->entries, err);
}

struct batch {
    const struct store_audit_new *entries;
    size_t count;
};

static int add_batch(sqlite3 *db, void *context, struct error *err)
{
    const struct batch *batch = context;
    cleanup(cleanup_writer) struct writer writer = {0};
    if (writer_open(db, &writer, err) < 0)
        return -1;
    for (size_t i = 0; i < batch->count; i++)
        if (add(&writer, &batch->entries[i], err) < 0)
            return -1;
    return writer_finish(&writer, err);
}

int store_audit_add(struct store *store, const struct store_audit_new *entries, size_t count,
                    struct error *err)
{
    struct batch batch = {.entries = entries, .count = count};
    return store_change(store, STORE_ROOM_USUAL, add_batch, &batch, err);
}

int store_audit_put(sqlite3 *db, const char *instance, enum store_audit_kind kind,
                    const char *detail, struct error *err)
{
    const struct store_audit_new entry = {.instance = instance, .kind = kind, .detail = detail};
    struct batch batch = {.entries = &entry, .count = 1};
    return add_batch(db, &batch, err);
}
