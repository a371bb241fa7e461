/* See walk.h. */
#include "walk.h"

#include <criterion/criterion.h>

enum { LINE_MAX_LEN = 256, DEPTH_MAX = 12 };

static bool name_matches(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);
    return pattern[len - 1] == '+' ? strncmp(pattern, name, len - 1) == 0
                                   : strcmp(pattern, name) == 0;
}

static bool uid_matches(const char *range, uint32_t uid)
{
    char *end;
    unsigned long from = strtoul(range, &end, 10);
    unsigned long to = *end == '-' ? strtoul(end + 1, &end, 10) : from;
    cr_assert(*end == '\0', "%s", range);
    return from <= uid && uid <= to;
}

static bool ends_with_name(const char *option)
{
    return strcmp(option, "--physdev-in") == 0 || strcmp(option, "--physdev-out") == 0;
}

/* Cuts the line up. False when the packet does not match; else *ret_target points into it. */
static bool matches(char *line, const struct walk_packet *packet, const char **ret_target)
{
    char *rest = NULL;
    *ret_target = NULL;
    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (strcmp(word, "--physdev-is-bridged") == 0)
            continue;
        const char *value = strtok_r(NULL, " ", &rest);
        cr_assert(value != NULL, "%s", word);
        if (ends_with_name(word)) /* no packet here is bridged */
            return false;
        if ((strcmp(word, "-i") == 0 && !name_matches(value, packet->in)) ||
            (strcmp(word, "-o") == 0 && !name_matches(value, packet->out)) ||
            (strcmp(word, "--uid-owner") == 0 && !uid_matches(value, packet->uid)))
            return false;
        if (strcmp(word, "-j") == 0)
            *ret_target = value;
        else
            cr_assert(strchr("iom-", word[1]) != NULL, "an option that is not ours: %s", word);
    }
    cr_assert(*ret_target != NULL);
    return true;
}

static bool walk_chain(const char *rules, const char *chain, const struct walk_packet *packet,
                       int depth, netfilter_name ret)
{
    char start[64], line[LINE_MAX_LEN];
    size_t start_len = (size_t)snprintf(start, sizeof(start), "-A %s ", chain);
    cr_assert(depth < DEPTH_MAX);
    for (const char *at = rules; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n') {
        const char *target;
        if (strncmp(at, start, start_len) != 0)
            continue;
        size_t len = strcspn(at, "\n") - start_len;
        cr_assert(len < sizeof(line));
        memcpy(line, at + start_len, len);
        line[len] = '\0';
        if (!matches(line, packet, &target))
            continue;
        if (strcmp(target, "DROP") == 0) {
            snprintf(ret, sizeof(netfilter_name), "%s", chain);
            return true;
        }
        if (walk_chain(rules, target, packet, depth + 1, ret))
            return true;
    }
    return false;
}

void walk(const char *rules, const struct walk_packet *packet, netfilter_name ret)
{
    ret[0] = '\0';
    walk_chain(rules, packet->hook, packet, 0, ret);
}
