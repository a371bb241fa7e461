/* Names: digests of the whole id, so that no id, however long or odd, shares a chain with another.
 */
#include "netfilter/internal.h"

const char netfilter_root_uid[] = "MOTTE_uid", netfilter_root_in[] = "MOTTE_in",
           netfilter_root_out[] = "MOTTE_out", netfilter_root_phys[] = "MOTTE_phys";
const char *const netfilter_roots[] = {netfilter_root_uid, netfilter_root_in, netfilter_root_out,
                                       netfilter_root_phys, NULL};

static const char chain_prefix[] = "MOTTE_", interface_prefix[] = "mt",
                  hex_digits[] = "0123456789abcdef";
enum {
    CHAIN_DIGITS = 20,
    CHAIN_LEN = sizeof(chain_prefix) - 1 + CHAIN_DIGITS,
    INTERFACE_DIGITS = 12,
    NAMES_AT_FIRST = 64,
};
_Static_assert((int)CHAIN_LEN <= (int)NETFILTER_CHAIN_MAX, "libiptc would cut the chain's name");
_Static_assert(sizeof(interface_prefix) - 1 + INTERFACE_DIGITS <= (int)NETFILTER_INTERFACE_MAX,
               "the kernel would refuse the interface's name");

static void digest_name(const char *id, const char *prefix, size_t digits, char *out)
{
    uint8_t digest[HASH_SIZE];
    size_t len = strlen(prefix);
    hash_sha256(id, strlen(id), digest);
    memcpy(out, prefix, len + 1);
    hash_to_hex(digest, digits / 2, out + len);
}

void netfilter_chain_name(const char *id, char out[static NETFILTER_CHAIN_MAX + 1])
{
    digest_name(id, chain_prefix, CHAIN_DIGITS, out);
}

void netfilter_interface_name(const char *id, char out[static NETFILTER_INTERFACE_MAX + 1])
{
    digest_name(id, interface_prefix, INTERFACE_DIGITS, out);
}

void netfilter_interface_of_chain(const char *chain, char out[static NETFILTER_INTERFACE_MAX + 1])
{
    size_t len = sizeof(interface_prefix) - 1;
    memcpy(out, interface_prefix, len);
    memcpy(out + len, chain + sizeof(chain_prefix) - 1, INTERFACE_DIGITS);
    out[len + INTERFACE_DIGITS] = '\0';
}

bool netfilter_chain_is_vm(const char *chain)
{
    const char *digits = chain + sizeof(chain_prefix) - 1;
    return strnlen(chain, CHAIN_LEN + 1) == CHAIN_LEN &&
           strncmp(chain, chain_prefix, sizeof(chain_prefix) - 1) == 0 &&
           strspn(digits, hex_digits) == CHAIN_DIGITS;
}

bool netfilter_chain_is_root(const char *chain)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++)
        if (strcmp(chain, netfilter_roots[i]) == 0)
            return true;
    return false;
}

bool netfilter_chain_is_inner(const char *chain, struct netfilter_inner *ret)
{
    static const struct {
        const char *prefix;
        enum netfilter_kind kind;
        size_t digits_min, digits_max;
    } trees[] = {
        {"MOTTE_u_", NETFILTER_BY_UID, 1, NETFILTER_UID_DIGITS - 1},
        {"MOTTE_i_", NETFILTER_BY_IN, NETFILTER_NAME_DIGITS, NETFILTER_NAME_DIGITS},
        {"MOTTE_o_", NETFILTER_BY_OUT, NETFILTER_NAME_DIGITS, NETFILTER_NAME_DIGITS},
    };
    for (size_t i = 0; i < COUNT_OF(trees); i++) {
        size_t len = strlen(trees[i].prefix);
        if (strncmp(chain, trees[i].prefix, len) != 0)
            continue;
        const char *digits = chain + len;
        size_t count = strspn(digits, hex_digits);
        if (count < trees[i].digits_min || count > trees[i].digits_max || digits[count] != '\0')
            return false;
        *ret = (struct netfilter_inner){.kind = trees[i].kind,
                                        .digits = (unsigned)count,
                                        .value = (uint32_t)strtoul(digits, NULL, 16)};
        return true;
    }
    return false;
}

bool netfilter_chain_is_ours(const char *chain)
{
    struct netfilter_inner inner;
    return netfilter_chain_is_vm(chain) || netfilter_chain_is_root(chain) ||
           netfilter_chain_is_inner(chain, &inner);
}

/* ---- lists of names ------------------------------------------------------------------------- */

void netfilter_names_release(struct netfilter_names *names)
{
    free(names->list);
    *names = (struct netfilter_names){0};
}

int netfilter_names_add(struct netfilter_names *names, const char *chain, struct error *err)
{
    if (names->count == names->room) {
        size_t room = names->room == 0 ? NAMES_AT_FIRST : 2 * names->room;
        netfilter_name *list = reallocarray(names->list, room, sizeof(*list));
        if (list == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "no memory for %zu chain names", room);
        names->list = list;
        names->room = room;
    }
    (void)snprintf(names->list[names->count++], sizeof(netfilter_name), "%s", chain);
    return 0;
}

static int compare_names(const void *one, const void *other)
{
    return strcmp(one, other);
}

void netfilter_names_sort(struct netfilter_names *names)
{
    size_t unique = 0;
    if (names->count > 1)
        qsort(names->list, names->count, sizeof(*names->list), compare_names);
    for (size_t i = 0; i < names->count; i++)
        if (unique == 0 || strcmp(names->list[unique - 1], names->list[i]) != 0)
            memmove(names->list[unique++], names->list[i], sizeof(netfilter_name));
    names->count = unique;
}

bool netfilter_names_have(const struct netfilter_names *names, const char *chain)
{
    return names->count > 0 &&
           bsearch(chain, names->list, names->count, sizeof(*names->list), compare_names) != NULL;
}
