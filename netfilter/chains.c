/* Names: digests of the whole id, so that no id, however long or odd, shares a chain with another.
 */
#include "netfilter/internal.h"

const char netfilter_root_uid[] = "MOTTE_uid", netfilter_root_in[] = "MOTTE_in",
           netfilter_root_out[] = "MOTTE_out", netfilter_root_phys[] = "MOTTE_phys";
const char *const netfilter_roots[] = {netfilter_root_uid, netfilter_root_in, netfilter_root_out,
                                       netfilter_root_phys, NULL};

static const char chain_prefix[] = "MOTTE_", interface_prefix[] = "mt";
enum {
    CHAIN_DIGITS = 20,
    CHAIN_LEN = sizeof(chain_prefix) - 1 + CHAIN_DIGITS,
    INTERFACE_DIGITS = 12,
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

bool netfilter_chain_is_vm(const char *chain)
{
    const char *digits = chain + sizeof(chain_prefix) - 1;
    return strnlen(chain, CHAIN_LEN + 1) == CHAIN_LEN &&
           strncmp(chain, chain_prefix, sizeof(chain_prefix) - 1) == 0 &&
           strspn(digits, "0123456789abcdef") == CHAIN_DIGITS;
}

bool netfilter_chain_is_root(const char *chain)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++)
        if (strcmp(chain, netfilter_roots[i]) == 0)
            return true;
    return false;
}
