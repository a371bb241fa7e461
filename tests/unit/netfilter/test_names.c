/* Names: no two ids share a chain, no name is too long. Touches no firewall. */
#include "netfilter/netfilter.h"

#include <criterion/criterion.h>
#include <sys/random.h>

enum { PAIRS = 100000, ID_MAX = 200 };

/* Any bytes but NUL, and often letters that an id may have. */
static void random_id(unsigned *seed, char id[ID_MAX + 2])
{
    size_t len = (size_t)rand_r(seed) % ID_MAX;
    bool odd = rand_r(seed) % 2 == 0;
    for (size_t i = 0; i < len; i++)
        id[i] = (char)(odd ? 1 + rand_r(seed) % 255 : "ab01-_./"[rand_r(seed) % 8]);
    id[len] = '\0';
}

/* A neighbour: one byte changed, or one more at the end. */
static void mutate(unsigned *seed, const char *id, char other[ID_MAX + 2])
{
    size_t len = strlen(id);
    memcpy(other, id, len + 1);
    if (len == 0 || rand_r(seed) % 4 == 0) {
        other[len] = 'x';
        other[len + 1] = '\0';
        return;
    }
    size_t at = rand_r(seed) % 2 == 0 ? len - 1 : (size_t)rand_r(seed) % len;
    char changed = (char)(1 + rand_r(seed) % 255);
    other[at] = changed != id[at] ? changed : (char)(changed == 'x' ? 'y' : 'x');
}

static void assert_distinct(const char *one, const char *other)
{
    netfilter_name a, b;
    char c[NETFILTER_INTERFACE_MAX + 1], d[NETFILTER_INTERFACE_MAX + 1];
    netfilter_chain_name(one, a);
    netfilter_chain_name(other, b);
    cr_assert(strcmp(a, b) != 0, "chain %s for '%s' and '%s'", a, one, other);
    netfilter_interface_name(one, c);
    netfilter_interface_name(other, d);
    cr_assert(strcmp(c, d) != 0, "interface %s for '%s' and '%s'", c, one, other);
}

static unsigned fresh_seed(void)
{
    unsigned seed;
    cr_assert(getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed));
    cr_log_info("seed %u", seed);
    return seed;
}

Test(netfilter_names, R12_distinct_ids_give_distinct_chains)
{
    unsigned seed = fresh_seed();
    for (int i = 0; i < PAIRS; i++) {
        char one[ID_MAX + 2], other[ID_MAX + 2];
        random_id(&seed, one);
        mutate(&seed, one, other);
        assert_distinct(one, other);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

Test(netfilter_names, R12_no_two_of_many_instances_share_a_chain)
{
    netfilter_name *names = calloc(PAIRS, sizeof(*names));
    cr_assert(names != NULL);
    for (int i = 0; i < PAIRS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        netfilter_chain_name(id, names[i]);
    }
    qsort(names, PAIRS, sizeof(*names), compare);
    for (int i = 1; i < PAIRS; i++)
        cr_assert(strcmp(names[i - 1], names[i]) != 0, "%s twice", names[i]);
    free(names);
}

Test(netfilter_names, R12_ids_that_look_alike)
{
    char one[ID_VM_MAX + 1], other[ID_VM_MAX + 1];
    memset(one, 'a', ID_VM_MAX);
    one[ID_VM_MAX] = '\0';
    memcpy(other, one, sizeof(one));
    other[ID_VM_MAX - 1] = 'b';
    const char *const pairs[][2] = {
        {"test-vm", "test_vm"},
        {"vm-1", "vm_1"},
        {one, other},
        {"", "a"},
        {"vm", "VM"},
        {"vm", "vm "},
        {"1", "01"},
        {"../etc", ".._etc"},
        {"vm\n", "vm"},
        {"e\xcc\x81", "\xc3\xa9"},
        {"MOTTE_uid", "uid"},
        {one, one + 1},
    };
    for (size_t i = 0; i < COUNT_OF(pairs); i++)
        assert_distinct(pairs[i][0], pairs[i][1]);
}

Test(netfilter_names, R13_names_fit_whatever_the_id)
{
    unsigned seed = fresh_seed();
    char *longest = malloc(1 << 20);
    cr_assert(longest != NULL);
    memset(longest, 'z', (1 << 20) - 1);
    longest[(1 << 20) - 1] = '\0';
    for (int i = 0; i <= 10000; i++) {
        char id[ID_MAX + 2];
        random_id(&seed, id);
        /* Filled, so that a name without its NUL is seen. */
        char chain[64], interface[64];
        memset(chain, 'x', sizeof(chain));
        memset(interface, 'x', sizeof(interface));
        netfilter_chain_name(i == 0 ? longest : id, chain);
        netfilter_interface_name(i == 0 ? longest : id, interface);
        cr_assert(strnlen(chain, sizeof(chain)) <= 28, "id '%s'", id);
        cr_assert(strnlen(interface, sizeof(interface)) <= 15, "id '%s'", id);
    }
    free(longest);
}

/* Names are found again after an upgrade only if they never change. printf vm-1 | sha256sum */
Test(netfilter_names, names_are_the_digest_of_the_whole_id)
{
    netfilter_name chain;
    char interface[NETFILTER_INTERFACE_MAX + 1];
    netfilter_chain_name("vm-1", chain);
    netfilter_interface_name("vm-1", interface);
    cr_expect_str_eq(chain, "MOTTE_2d62b0035f348790d3b9");
    cr_expect_str_eq(interface, "mt2d62b0035f34");
}
