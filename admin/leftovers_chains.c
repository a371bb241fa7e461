/* Chains of VMs in the legacy tables. They are read with libiptc itself, since netfilter_open() would
 * make Motte's root chains. */
#include "admin/internal.h"
#include "netfilter/netfilter.h"

#include <errno.h>
#include <fcntl.h>
#include <libiptc/libip6tc.h>
#include <libiptc/libiptc.h>

enum { SPARES_MAX = 1 << 20 };

/* Chains by whose they are. */
struct owners {
    const struct admin *admin;     /* borrowed */
    const struct admin_live *live; /* borrowed */
    char *spares; /* owned: motted's list, an instance a line; NULL: there is none */
};

static bool is_chain_of(const char *instance, const char *chain)
{
    char name[NETFILTER_CHAIN_MAX + 1];
    netfilter_chain_name(instance, name);
    return strcmp(name, chain) == 0;
}

static bool live_chain(const struct owners *owners, const char *chain)
{
    for (size_t i = 0; i < owners->live->count; i++)
        if (is_chain_of(owners->live->instances[i], chain))
            return true;
    return false;
}

static bool is_listed(const struct owners *owners, const char *chain)
{
    const char *at = owners->spares;
    while (strlen(at) > ID_INSTANCE_LEN) {
        char instance[ID_INSTANCE_LEN + 1] = "";
        memcpy(instance, at, ID_INSTANCE_LEN);
        if (is_chain_of(instance, chain))
            return true;
        at += ID_INSTANCE_LEN + 1;
    }
    return false;
}

static void read_spares(struct owners *owners)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%.280s/priv/spares", owners->admin->run_dir);
    if (fs_read_at(AT_FDCWD, path, owners->spares, SPARES_MAX) < 0)
        owners->spares[0] = '\0';
}

/* Chains come while we look, but motted lists each before it makes it: so look again. */
static bool spare_chain(struct owners *owners, const char *chain)
{
    if (is_listed(owners, chain))
        return true;
    read_spares(owners);
    return is_listed(owners, chain);
}

/* "MOTTE_" and 20 hexadecimal digits: a VM's chain; the roots are shorter. */
static bool vm_chain(const char *chain)
{
    return strncmp(chain, "MOTTE_", 6) == 0 && strspn(chain + 6, "0123456789abcdef") == 20 &&
           chain[26] == '\0';
}

static int take_chain(struct owners *owners, const char *family, const char *table,
                      const char *chain, struct admin_found *found, struct error *err)
{
    char text[128];
    if (!vm_chain(chain) || live_chain(owners, chain))
        return 0;
    if (spare_chain(owners, chain))
        return admin_found_spare(found, chain, err);
    (void)snprintf(text, sizeof(text), "%s %s %s", family, table, chain);
    return admin_found_add(found, ADMIN_CHAIN, text, err);
}

/* Opening a table would load it; one that is not in this list holds nothing of ours. */
static bool table_loaded(const char *names_file, const char *table)
{
    char names[512], line[32];
    if (fs_read_at(AT_FDCWD, names_file, names, sizeof(names)) < 0)
        return false;
    (void)snprintf(line, sizeof(line), "%s\n", table);
    return strstr(names, line) != NULL;
}

static int scan_v4(struct owners *owners, const char *table, struct admin_found *found,
                   struct error *err)
{
    if (!table_loaded("/proc/net/ip_tables_names", table))
        return 0;
    struct xtc_handle *handle = iptc_init(table);
    if (handle == NULL)
        return error_set(err, ERR_FIREWALL_PRIVILEGE, 0, "Cannot read IPv4 table %s: %s", table,
                         iptc_strerror(errno));
    int result = 0;
    for (const char *chain = iptc_first_chain(handle); chain != NULL && result == 0;
         chain = iptc_next_chain(handle))
        result = take_chain(owners, "IPv4", table, chain, found, err);
    iptc_free(handle);
    return result;
}

static int scan_v6(struct owners *owners, const char *table, struct admin_found *found,
                   struct error *err)
{
    if (!table_loaded("/proc/net/ip6_tables_names", table))
        return 0;
    struct xtc_handle *handle = ip6tc_init(table);
    if (handle == NULL)
        return error_set(err, ERR_FIREWALL_PRIVILEGE, 0, "Cannot read IPv6 table %s: %s", table,
                         ip6tc_strerror(errno));
    int result = 0;
    for (const char *chain = ip6tc_first_chain(handle); chain != NULL && result == 0;
         chain = ip6tc_next_chain(handle))
        result = take_chain(owners, "IPv6", table, chain, found, err);
    ip6tc_free(handle);
    return result;
}

int admin_scan_chains(const struct admin *admin, const struct admin_live *live,
                      struct admin_found *found, struct error *err)
{
    static const char *const tables[] = {"security", "filter"};
    cleanup_free char *spares = calloc(1, SPARES_MAX);
    struct owners owners = {.admin = admin, .live = live, .spares = spares};
    if (spares == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    for (size_t i = 0; i < COUNT_OF(tables); i++)
        if (scan_v4(&owners, tables[i], found, err) < 0 ||
            scan_v6(&owners, tables[i], found, err) < 0)
            return -1;
    return 0;
}
