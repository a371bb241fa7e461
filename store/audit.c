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
    [STORE_AUDIT_CLAIMED] = "claimed",
};

const char *store_audit_kind_name(enum store_audit_kind kind)
{
    return kind >= STORE_AUDIT_CREATED && kind < (int)COUNT_OF(kinds) ? kinds[kind] : "unknown";
}

int store_audit_kind_parse(const char *name, enum store_audit_kind *ret)
{
    for (int kind = STORE_AUDIT_CREATED; kind < (int)COUNT_OF(kinds); kind++) {
        if (strcmp(kinds[kind], name) == 0) {
            *ret = (enum store_audit_kind)kind;
            return 0;
        }
    }
    return -1;
}

/* ---- writing ---- */

/* Whose VM it is the inventory knows better than the caller. Neither seq nor a VM's own number is
 * ever used again: the newest entry is never the one that goes, and `first` is past all that a power
 * cut may have undone. */
static const struct store_ring ring = {
    .size = "SELECT entries FROM audit_size",
    .insert = "INSERT INTO audit"
              " (seq, wall_ms, instance, number, previous, id, owner, kind, detail)"
              " SELECT 1 + max(first, ifnull((SELECT max(seq) FROM audit), 0)), ?2, ?1,"
              " 1 + ifnull(last.number, 0), ifnull(last.seq, 0), vm.id, vm.owner, ?3, ?4"
              " FROM audit_size,"
              " (SELECT id, owner FROM vms WHERE instance = ?1"
              "  UNION ALL SELECT id, owner FROM certificates WHERE instance = ?1) AS vm"
              " LEFT JOIN (SELECT number, seq FROM audit WHERE instance = ?1"
              "  ORDER BY number DESC LIMIT 1) AS last LIMIT 1",
    .trim = "DELETE FROM audit WHERE instance = ?1 AND number <="
            " (SELECT max(number) FROM audit WHERE instance = ?1) - ?2",
    .lose = "UPDATE audit_size SET lost = (SELECT seq FROM audit ORDER BY seq"
            " LIMIT 1 OFFSET ?1 - 1)",
    .drop = "DELETE FROM audit WHERE seq <= (SELECT lost FROM audit_size)",
    .resize = "UPDATE audit_size SET entries = ?1",
    .own_max = STORE_AUDIT_VM_MAX,
    .max = STORE_AUDIT_MAX,
};

static int add(struct store_ring_writer *writer, const struct store_audit_new *entry,
               struct error *err)
{
    const char *detail = entry->detail == NULL ? "{}" : entry->detail;
    if (strlen(detail) >= STORE_AUDIT_DETAIL_SIZE)
        return error_set(err, ERR_INTERNAL, 0, "the detail of an audit entry is too long");
    if (store_bind_number(writer->insert, 2, clock_wall_ms(), err) < 0 ||
        store_bind_number(writer->insert, 3, entry->kind, err) < 0 ||
        store_bind_text(writer->insert, 4, detail, err) < 0)
        return -1;
    return store_ring_add(writer, entry->instance, err);
}

struct batch {
    const struct store_audit_new *entries;
    size_t count;
};

static int add_batch(sqlite3 *db, void *context, struct error *err)
{
    const struct batch *batch = context;
    cleanup(store_ring_close) struct store_ring_writer writer = {0};
    if (store_ring_open(db, &ring, &writer, err) < 0)
        return -1;
    for (size_t i = 0; i < batch->count; i++)
        if (add(&writer, &batch->entries[i], err) < 0)
            return -1;
    return store_ring_finish(&writer, err);
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
