/* One table: read it, edit the copy, commit it; and what libiptc's errno means to the user. */
#include "netfilter/internal.h"
#include "netfilter/xtables.h"

#include <errno.h>

static int open_error(const struct netfilter_family *family, const char *name, int sys,
                      struct error *err)
{
    switch (sys) {
    case EPERM:
    case EACCES:
        return error_set(err, ERR_FIREWALL_PRIVILEGE, sys,
                         "reading the %s table %s needs CAP_NET_ADMIN and CAP_NET_RAW, run as root",
                         family->name, name);
    case ENOENT:
    case ENOPROTOOPT:
    case EAFNOSUPPORT:
        return error_set(
            err, ERR_FIREWALL_TABLE, sys,
            "the kernel has no %s table %s of the legacy xtables, try `modprobe -a %s`",
            family->name, name, family->modules);
    case ENOMEM:
    case ENOBUFS:
        return error_set(err, ERR_NO_MEMORY, sys, "reading the %s table %s", family->name, name);
    case EMFILE:
    case ENFILE:
        return error_set(err, ERR_SYSTEM, sys, "reading the %s table %s", family->name, name);
    default:
        return error_set(err, ERR_FIREWALL_TABLE, sys, "reading the %s table %s", family->name,
                         name);
    }
}

static int edit_error(const struct netfilter_table *table, const char *what, struct error *err)
{
    int sys = errno;
    return error_set(err, ERR_FIREWALL_COMMIT, sys, "%s table %s, %s: %s", table->family->name,
                     table->name, what, table->family->ops->strerror(sys));
}

/* As many as the kernel counts: every chain has its end, ours and others' have a head, the table
 * has an end of its own. */
static size_t count_entries(const struct netfilter_family *family, struct xtc_handle *handle)
{
    const struct xtc_ops *ops = family->ops;
    size_t count = 1;
    for (const char *chain = ops->first_chain(handle); chain != NULL;
         chain = ops->next_chain(handle)) {
        count += ops->builtin(chain, handle) ? 1 : 2;
        for (const void *entry = family->first(chain, handle); entry != NULL;
             entry = family->next(entry, handle))
            count++;
    }
    return count;
}

/* 1: read; 0: not whole; -1 failed. When memory ends while libiptc takes a table apart it leaves
 * out the rest and says nothing, and a commit would take that away from the kernel, rules of other
 * programs with it. */
static int read_once(const struct netfilter_family *family, const char *name,
                     struct netfilter_table *ret, struct error *err)
{
    struct netfilter_size size;
    errno = 0;
    struct xtc_handle *handle = family->ops->init(name);
    if (handle == NULL)
        return open_error(family, name, abs(errno), err); /* libiptc: errno = -ENOMEM */
    *ret = (struct netfilter_table){.family = family, .name = name, .handle = handle};
    int asked = netfilter_size(family, name, &size);
    if (asked == 0 && count_entries(family, handle) == size.rules)
        return 1;
    int sys = errno;
    netfilter_table_close(ret);
    return asked == 0 ? 0 : open_error(family, name, sys, err);
}

int netfilter_table_open(const struct netfilter_family *family, const char *name,
                         struct netfilter_table *ret, struct error *err)
{
    enum { TRIES = 5 }; /* another program's commit between the two looks is no want of memory */
    for (int i = 0; i < TRIES; i++) {
        int whole = read_once(family, name, ret, err);
        if (whole != 0)
            return whole > 0 ? 0 : -1;
    }
    return error_set(err, ERR_NO_MEMORY, 0, "the %s table %s could not be read whole", family->name,
                     name);
}

void netfilter_table_close(struct netfilter_table *table)
{
    int saved = errno;
    if (table->handle != NULL)
        table->family->ops->free(table->handle);
    table->handle = NULL;
    errno = saved;
}

int netfilter_table_commit(struct netfilter_table *table, struct error *err)
{
    errno = 0;
    if (table->family->ops->commit(table->handle))
        return 0;
    if (errno == EAGAIN)
        return 1;
    return edit_error(table, "the kernel refused the new rules (see dmesg)", err);
}

bool netfilter_table_has(const struct netfilter_table *table, const char *chain)
{
    return table->family->ops->is_chain(chain, table->handle);
}

static int edited(struct netfilter_table *table, int ok, const char *what, struct error *err)
{
    if (!ok)
        return edit_error(table, what, err);
    table->changed = true;
    return 0;
}

int netfilter_table_make(struct netfilter_table *table, const char *chain, struct error *err)
{
    errno = 0;
    return edited(table, table->family->ops->create_chain(chain, table->handle), "making a chain",
                  err);
}

int netfilter_table_flush(struct netfilter_table *table, const char *chain, struct error *err)
{
    errno = 0;
    return edited(table, table->family->ops->flush_entries(chain, table->handle),
                  "emptying a chain", err);
}

int netfilter_table_destroy(struct netfilter_table *table, const char *chain, struct error *err)
{
    errno = 0;
    return edited(table, table->family->destroy(chain, table->handle), "removing a chain", err);
}

static int build(const struct netfilter_table *table, const struct netfilter_rule *rule,
                 struct netfilter_bytes *ret, struct error *err)
{
    if (netfilter_rule_build(table->family, rule, ret))
        return 0;
    return error_set(err, ERR_INTERNAL, ENAMETOOLONG, "a rule that jumps to %s", rule->target);
}

int netfilter_table_append(struct netfilter_table *table, const char *chain,
                           const struct netfilter_rule *rule, struct error *err)
{
    struct netfilter_bytes bytes;
    if (build(table, rule, &bytes, err) < 0)
        return -1;
    errno = 0;
    return edited(table, table->family->append(chain, bytes.data, table->handle),
                  "appending a rule", err);
}

int netfilter_table_insert(struct netfilter_table *table, const char *chain, unsigned at,
                           const struct netfilter_rule *rule, struct error *err)
{
    struct netfilter_bytes bytes;
    if (build(table, rule, &bytes, err) < 0)
        return -1;
    errno = 0;
    return edited(table, table->family->insert(chain, bytes.data, at, table->handle),
                  "inserting a rule", err);
}

int netfilter_table_remove(struct netfilter_table *table, const char *chain, unsigned at,
                           struct error *err)
{
    errno = 0;
    return edited(table, table->family->remove(chain, at, table->handle), "deleting a rule", err);
}

const void *netfilter_table_first(const struct netfilter_table *table, const char *chain)
{
    return table->family->first(chain, table->handle);
}

const void *netfilter_table_next(const struct netfilter_table *table, const void *entry)
{
    return table->family->next(entry, table->handle);
}

const char *netfilter_table_target(const struct netfilter_table *table, const void *entry)
{
    const char *target = table->family->target(entry, table->handle);
    return target != NULL ? target : "";
}

bool netfilter_table_is(const struct netfilter_table *table, const void *entry,
                        const struct netfilter_rule *rule)
{
    struct netfilter_bytes want;
    return strcmp(netfilter_table_target(table, entry), rule->target) == 0 &&
           netfilter_rule_build(table->family, rule, &want) &&
           netfilter_rule_same(table->family, entry, &want);
}

const char *netfilter_table_first_chain(const struct netfilter_table *table)
{
    return table->family->ops->first_chain(table->handle);
}

const char *netfilter_table_next_chain(const struct netfilter_table *table)
{
    return table->family->ops->next_chain(table->handle);
}
