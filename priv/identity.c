/* What a snapshot is bound to: the processor that ran its guest and the kernel whose KVM saved it. */
#include "priv/internal.h"

#include <errno.h>
#include <sys/utsname.h>

/* "model name\t: text": the value if the line is about `key`. */
static const char *value_of(char *line, const char *key)
{
    size_t len = strlen(key);
    if (strncmp(line, key, len) != 0)
        return NULL;
    const char *at = line + len + strspn(line + len, " \t");
    if (*at != ':')
        return NULL;
    line[strcspn(line, "\n")] = '\0';
    return at + 1 + strspn(at + 1, " ");
}

static void take_line(struct priv_identity *identity, char *line, unsigned *seen)
{
    static const char *const keys[] = {"vendor_id", "cpu family", "model", "stepping", "flags"};
    uint32_t *const numbers[] = {NULL, &identity->family, &identity->model, &identity->stepping};
    for (unsigned i = 0; i < COUNT_OF(keys); i++) {
        const char *value = value_of(line, keys[i]);
        if (value == NULL)
            continue;
        if (i == 0)
            snprintf(identity->vendor, sizeof(identity->vendor), "%s", value);
        else if (i < COUNT_OF(numbers))
            *numbers[i] = (uint32_t)strtoul(value, NULL, 10);
        else
            hash_sha256(value, strlen(value), identity->flags);
        *seen |= 1U << i;
    }
}

/* Of the first processor: KVM wants all of a host to be alike. */
int priv_identity_read(struct priv_identity *ret, struct error *err)
{
    enum { ALL_SEEN = 0x1f };
    struct utsname host;
    unsigned seen = 0;
    cleanup_free char *line = NULL;
    size_t size = 0;
    memset(ret, 0, sizeof(*ret));
    cleanup_file FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL)
        return error_set(err, ERR_SYSTEM, errno, "opening /proc/cpuinfo");
    while (getline(&line, &size, file) > 1) /* an empty line ends a processor */
        take_line(ret, line, &seen);
    if (seen != ALL_SEEN)
        return error_set(err, ERR_SYSTEM, 0, "/proc/cpuinfo does not say what processor this is");
    if (uname(&host) < 0)
        return error_set(err, ERR_SYSTEM, errno, "asking for the kernel's version");
    snprintf(ret->kernel, sizeof(ret->kernel), "%s", host.release);
    return 0;
}
