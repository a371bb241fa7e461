/*
 * The bytes of a rule: entry | match... | target, each part a multiple of 8 bytes (XT_ALIGN), all
 * padding zero. The kernel takes rules that mean nothing (`-o` in INPUT), so what is built here is
 * proven by packets in the tests.
 */
#include "netfilter/internal.h"
#include "netfilter/xtables.h"

/* "mt+" matches two bytes; "mt0" matches three and the NUL, so that it is no prefix. The '+' stays
 * in the name, outside the mask: iptables-save prints physdev names from the name alone. */
bool netfilter_rule_set_name(char *name, unsigned char *mask, const char *want)
{
    if (want == NULL)
        return true;
    size_t len = strnlen(want, IFNAMSIZ);
    if (len == 0 || len >= IFNAMSIZ)
        return false;
    memcpy(name, want, len);
    memset(mask, 0xff, want[len - 1] == '+' ? len - 1 : len + 1);
    return true;
}

static void *add_match(unsigned char *data, size_t *at, const char *name, uint8_t revision,
                       size_t size)
{
    struct xt_entry_match *match = (void *)(data + *at);
    match->u.user.match_size = (uint16_t)(XT_ALIGN(sizeof(*match)) + XT_ALIGN(size));
    memcpy(match->u.user.name, name, strlen(name)); /* zero so far, and short */
    match->u.user.revision = revision;
    *at += match->u.user.match_size;
    return match->data;
}

/* Revision 1: the kernel knows no other. It takes this match only in chains that are reached from
 * OUTPUT and POSTROUTING and from nowhere else. */
static void add_owner(unsigned char *data, size_t *at, const struct netfilter_rule *rule)
{
    struct xt_owner_match_info *owner = add_match(data, at, "owner", 1, sizeof(*owner));
    owner->uid_min = rule->uid_min;
    owner->uid_max = rule->uid_max; /* inclusive */
    owner->match = XT_OWNER_UID;
}

static bool add_physdev(unsigned char *data, size_t *at, const struct netfilter_rule *rule)
{
    struct xt_physdev_info *physdev = add_match(data, at, "physdev", 0, sizeof(*physdev));
    if (rule->phys_in != NULL)
        physdev->bitmask |= XT_PHYSDEV_OP_IN;
    if (rule->phys_out != NULL) /* the kernel refuses OUT without BRIDGED outside POSTROUTING */
        physdev->bitmask |= XT_PHYSDEV_OP_OUT | XT_PHYSDEV_OP_BRIDGED;
    return netfilter_rule_set_name(physdev->physindev, (unsigned char *)physdev->in_mask,
                                   rule->phys_in) &&
           netfilter_rule_set_name(physdev->physoutdev, (unsigned char *)physdev->out_mask,
                                   rule->phys_out);
}

bool netfilter_rule_build(const struct netfilter_family *family, const struct netfilter_rule *rule,
                          struct netfilter_bytes *ret)
{
    struct netfilter_bytes bytes = {0};
    size_t at = family->head;
    if (!family->set_names(bytes.data, rule))
        return false;
    if (rule->by_uid)
        add_owner(bytes.data, &at, rule);
    if ((rule->phys_in != NULL || rule->phys_out != NULL) && !add_physdev(bytes.data, &at, rule))
        return false;
    struct xt_standard_target *target = (void *)(bytes.data + at);
    target->target.u.user.target_size = XT_ALIGN(sizeof(*target));
    size_t len = strlen(rule->target);
    if (len > NETFILTER_CHAIN_MAX)
        return false;
    /* libiptc turns the name into the kernel's number. */
    memcpy(target->target.u.user.name, rule->target, len);
    family->set_sizes(bytes.data, at, at + target->target.u.user.target_size);
    *ret = bytes;
    return true;
}

/* The kernel writes a match's name only as far as its NUL, what follows is anything: a memcmp of
 * the whole match would see differences that are none. */
static bool same_match(const struct xt_entry_match *one, const struct xt_entry_match *other)
{
    return one->u.user.match_size == other->u.user.match_size &&
           one->u.user.revision == other->u.user.revision &&
           strncmp(one->u.user.name, other->u.user.name, sizeof(one->u.user.name)) == 0 &&
           memcmp(one->data, other->data, one->u.user.match_size - sizeof(*one)) == 0;
}

bool netfilter_rule_same(const struct netfilter_family *family, const void *entry,
                         const struct netfilter_bytes *want)
{
    if (!family->same_head(entry, want->data))
        return false;
    const unsigned char *have = entry;
    for (size_t at = family->head, end = family->target_at(entry); at < end;) {
        const struct xt_entry_match *one = (const void *)(have + at);
        const struct xt_entry_match *other = (const void *)(want->data + at);
        if (!same_match(one, other))
            return false;
        at += other->u.user.match_size; /* ours, so never 0 */
    }
    return true;
}

bool netfilter_rule_uid(const struct netfilter_family *family, const void *entry, uint32_t *ret)
{
    const struct xt_entry_match *match =
        (const void *)((const unsigned char *)entry + family->head);
    if (family->target_at(entry) < family->head + sizeof(*match) ||
        strncmp(match->u.user.name, "owner", sizeof(match->u.user.name)) != 0 ||
        match->u.user.revision != 1)
        return false;
    const struct xt_owner_match_info *owner = (const void *)match->data;
    *ret = owner->uid_min;
    return true;
}
