/* The options, one line each: the same keys on the command line and in the configuration file. */
#include "motted/internal.h"

#include <ctype.h>
#include <errno.h>

enum kind {
    TEXT,
    PATH,
    NUMBER,
    FLAG,
    LISTEN,
    POOL,
    QUOTA,
    HYPERVISOR,
    WITHOUT,
    RATIO,
    LEVEL,
    FORMAT,
    NAME
};

struct option {
    const char *key;
    enum kind kind;
    size_t offset, size;
    bool live; /* a reload may change it */
    uint64_t min, max;
    const char *help;
};

#define PLACE(name) offsetof(struct motted_config, name), sizeof(((struct motted_config *)0)->name)
#define FIELD(name) PLACE(name), false
#define LIVE(name) PLACE(name), true

static const struct option options[] = {
    {"listen", LISTEN, FIELD(listen), 0, 0,
     "unix:/PATH, tls:ADDRESS:PORT or, on the loopback interface, tcp:ADDRESS:PORT; may be "
     "repeated "
     "(unix:<run-dir>/motte.sock)"},
    {"metrics-listen", TEXT, FIELD(metrics_listen), 0, 0,
     "where /metrics, /healthz and /readyz alone are served (nowhere)"},
    {"token-file", PATH, LIVE(token_file), 0, 0,
     "what `motted token` writes, for callers over TCP; root's, 0600"},
    {"tls-certificate", PATH, LIVE(tls_certificate), 0, 0,
     "PEM of the certificate and its chain, for listeners with tls:"},
    {"tls-key", PATH, LIVE(tls_key), 0, 0, "PEM of its key; root's, 0600"},
    {"state-dir", PATH, FIELD(state_dir), 0, 0, "images, kernels, database (/var/lib/motte)"},
    {"run-dir", PATH, FIELD(run_dir), 0, 0, "records and sockets, on tmpfs (/run/motte)"},
    {"hypervisor", HYPERVISOR, FIELD(hypervisor), 0, 0, "auto, firecracker or qemu (auto)"},
    {"firecracker", PATH, FIELD(firecracker), 0, 0, "(/usr/local/bin/firecracker)"},
    {"jailer", PATH, FIELD(jailer), 0, 0, "Firecracker's jailer (/usr/local/bin/jailer)"},
    {"qemu", PATH, FIELD(qemu), 0, 0, "(/usr/bin/qemu-system-x86_64)"},
    {"front", PATH, FIELD(front), 0, 0, "the program motte-front (found beside motted)"},
    {"front-user", NAME, FIELD(front_user), 0, 0, "who the front runs as (motte)"},
    {"default-image", NAME, LIVE(default_image), 0, 0, "image of VMs that name none (python)"},
    {"pool", POOL, LIVE(pools), 0, 0,
     "IMAGE,min=N[,max=N][,vcpus=N][,memory-mib=N][,disk-mib=N][,seccomp=LEVEL]: VMs that wait for "
     "somebody to ask for such a one; may be repeated (none)"},
    {"cgroup", NAME, FIELD(cgroup), 0, 0, "cgroup that holds the VMs' cgroups (motte)"},
    {"uid-base", NUMBER, FIELD(uid_base), 1000, UINT32_MAX, "first uid for VMs (1879048192)"},
    {"uid-count", NUMBER, FIELD(uid_count), 1, 1 << 20, "how many (65536)"},
    {"max-vms", NUMBER, LIVE(max_vms), 1, 65536, "VMs at once (1000)"},
    {"max-vcpus", NUMBER, LIVE(max_vcpus), 1, 32, "vCPUs of a VM (32)"},
    {"max-memory-mib", NUMBER, LIVE(max_memory_mib), 128, 1 << 24,
     "memory of a VM (all that VMs may have)"},
    {"max-disk-mib", NUMBER, LIVE(max_disk_mib), 0, 1 << 24, "scratch disk of a VM (16384)"},
    {"max-snapshots", NUMBER, LIVE(max_snapshots), 0, 65536,
     "snapshots kept on the state directory's disk (100)"},
    {"max-tenant-vms", NUMBER, LIVE(max_tenant_vms), 0, UINT32_MAX,
     "VMs that one tenant has at once; 0: no limit, as with the next three (0)"},
    {"max-tenant-vcpus", NUMBER, LIVE(max_tenant_vcpus), 0, UINT32_MAX, "vCPUs of his (0)"},
    {"max-tenant-memory-mib", NUMBER, LIVE(max_tenant_memory_mib), 0, UINT32_MAX,
     "memory of his (0)"},
    {"max-tenant-execs", NUMBER, LIVE(max_tenant_execs), 0, UINT32_MAX,
     "commands of his that run (0)"},
    {"quota", QUOTA, LIVE(quotas), 0, 0,
     "TENANT[,vms=N][,vcpus=N][,memory-mib=N][,execs=N]: what one tenant has in the place of these "
     "four; may be repeated (none)"},
    {"image-snapshots", NUMBER, FIELD(image_snapshots), 0, 256,
     "besides, snapshots of images just booted, for VMs to start from; 0: all VMs boot (8)"},
    {"max-io-mib-s", NUMBER, FIELD(max_io_mib_s), 0, 1 << 20,
     "MiB a second that a VM reads, and writes, on the state directory's disk; 0: no limit (512)"},
    {"max-iops", NUMBER, FIELD(max_iops), 0, 100000000,
     "operations a second, likewise; 0: no limit (20000)"},
    {"memory-overcommit", RATIO, LIVE(memory_overcommit), 0, 0,
     "memory of all VMs together, as a share of the host's (1.0)"},
    {"boot-timeout-ms", NUMBER, LIVE(boot_timeout_ms), 100, 3600000,
     "from start to the guest's hello (60000)"},
    {"answer-timeout-ms", NUMBER, FIELD(answer_timeout_ms), 100, 600000,
     "a VMM or agent that does not answer within it three times in a row hangs (2000)"},
    {"without", WITHOUT, FIELD(without), 0, 0,
     "a guard to go without: firewall, cgroup or seccomp; shows in every VM's record"},
    {"log-level", LEVEL, LIVE(log_level), 0, 0, "error, warn, info or debug (info)"},
    {"log-format", FORMAT, FIELD(log_format), 0, 0, "text, or json: an object a line (text)"},
    {"dev", FLAG, FIELD(dev), 0, 0, "allow emulation where KVM cannot be used: no security border"},
};

static int put_text(const struct option *option, char *field, size_t size, const char *value,
                    struct error *err)
{
    size_t len = strlen(value);
    if (len == 0 || len >= size)
        return error_set(err, ERR_CONFIG, 0, "%s: a text of 1 to %zu characters", option->key,
                         size - 1);
    if (option->kind == PATH && value[0] != '/')
        return error_set(err, ERR_CONFIG, 0, "%s: `%.60s` is not an absolute path", option->key,
                         value);
    if (option->kind == NAME && !id_name_valid(value))
        return error_set(err, ERR_CONFIG, 0, "%s: `%.60s` is not a name of [a-z0-9._-]",
                         option->key, value);
    memcpy(field, value, len + 1);
    return 0;
}

static int put_ratio(const struct option *option, double *field, const char *value,
                     struct error *err)
{
    char *end = NULL;
    double ratio = strtod(value, &end);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || !(ratio >= 0.1 && ratio <= 16))
        return error_set(err, ERR_CONFIG, 0, "%s: `%.40s` is not a number from 0.1 to 16",
                         option->key, value);
    *field = ratio;
    return 0;
}

/* The place of `value` among the words, or -1 with an error that lists them. */
static int choose(const struct option *option, const char *value, const char *const *words,
                  size_t count, struct error *err)
{
    char list[128] = "";
    for (size_t i = 0; i < count; i++) {
        if (strcmp(value, words[i]) == 0)
            return (int)i;
        size_t len = strlen(list);
        snprintf(list + len, sizeof(list) - len, "%s%s", i == 0 ? "" : ", ", words[i]);
    }
    return error_set(err, ERR_CONFIG, 0, "%s: `%.40s` is none of %s", option->key, value, list);
}

static int put_choice(const struct option *option, struct motted_config *config, const char *value,
                      struct error *err)
{
    static const char *const hypervisors[] = {"auto", "firecracker", "qemu"};
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    static const char *const formats[] = {"text", "json"};
    static const char *const guards[] = {"firewall", "cgroup", "seccomp"};
    static const uint32_t bits[] = {PRIV_GUARD_FIREWALL, PRIV_GUARD_CGROUP, PRIV_GUARD_SECCOMP};
    int chosen;
    if (option->kind == HYPERVISOR)
        chosen = choose(option, value, hypervisors, COUNT_OF(hypervisors), err);
    else if (option->kind == LEVEL)
        chosen = choose(option, value, levels, COUNT_OF(levels), err);
    else if (option->kind == FORMAT)
        chosen = choose(option, value, formats, COUNT_OF(formats), err);
    else
        chosen = choose(option, value, guards, COUNT_OF(guards), err);
    if (chosen < 0)
        return -1;
    if (option->kind == HYPERVISOR)
        config->hypervisor = (enum motted_hypervisor)chosen;
    else if (option->kind == LEVEL)
        config->log_level = (enum log_level)chosen;
    else if (option->kind == FORMAT)
        config->log_format = (enum log_format)chosen;
    else
        config->without |= bits[chosen];
    return 0;
}

static int put_listen(const struct option *option, struct motted_config *config, const char *value,
                      struct error *err)
{
    if (config->listen_count == MOTTED_LISTEN_MAX)
        return error_set(err, ERR_CONFIG, 0, "listen: at most %d", MOTTED_LISTEN_MAX);
    if (put_text(option, config->listen[config->listen_count], MOTTED_TEXT_MAX, value, err) < 0)
        return -1;
    config->listen_count++;
    return 0;
}

_Static_assert((int)PRIV_POOL_SIZE == (int)PRIV_QUOTA_SIZE, "lines of one size");

/* One more line of a list that the front reads. */
static int put_line(const struct option *option, char (*lines)[PRIV_POOL_SIZE], size_t *count,
                    const char *value, struct error *err)
{
    size_t most = option->size / sizeof(*lines);
    if (*count == most)
        return error_set(err, ERR_CONFIG, 0, "%s: at most %zu", option->key, most);
    if (put_text(option, lines[*count], sizeof(*lines), value, err) < 0)
        return -1;
    ++*count;
    return 0;
}

static int put_flag(const struct option *option, bool *field, const char *value, struct error *err)
{
    static const char *const words[] = {"false", "true"};
    int chosen = choose(option, value, words, COUNT_OF(words), err);
    if (chosen < 0)
        return -1;
    *field = chosen == 1;
    return 0;
}

static const struct option *find(const char *key)
{
    for (size_t i = 0; i < COUNT_OF(options); i++)
        if (strcmp(options[i].key, key) == 0)
            return &options[i];
    return NULL;
}

bool motted_option_wants_value(const char *key)
{
    const struct option *option = find(key);
    return option != NULL && option->kind != FLAG;
}

/* `max_vms` and `memory` are near to something. */
static int refuse_unknown(const char *key, struct error *err)
{
    char wanted[64], near[128] = "";
    snprintf(wanted, sizeof(wanted), "%s", key);
    for (char *c = wanted; *c != '\0'; c++)
        *c = (char)(*c == '_' ? '-' : tolower((unsigned char)*c));
    for (size_t i = 0; i < COUNT_OF(options) && strlen(wanted) >= 3; i++) {
        size_t len = strlen(near);
        if (strstr(options[i].key, wanted) != NULL)
            snprintf(near + len, sizeof(near) - len, "%s %s", len == 0 ? "; there is" : ",",
                     options[i].key);
    }
    return error_set(err, ERR_CONFIG, 0, "no such option: %.60s%s; see motted --help", key, near);
}

int motted_option(struct motted_config *config, const char *key, const char *value,
                  struct error *err)
{
    const struct option *option = find(key);
    if (option == NULL)
        return refuse_unknown(key, err);
    char *field = (char *)config + option->offset;
    switch (option->kind) {
    case TEXT:
    case PATH:
    case NAME:
        return put_text(option, field, option->size, value, err);
    case NUMBER:
        return kv_number(key, value, option->min, option->max, (uint64_t *)(void *)field, err);
    case FLAG:
        return put_flag(option, (bool *)field, value, err);
    case LISTEN:
        return put_listen(option, config, value, err);
    case POOL:
        return put_line(option, config->pools, &config->pool_count, value, err);
    case QUOTA:
        return put_line(option, config->quotas, &config->quota_count, value, err);
    case RATIO:
        return put_ratio(option, (double *)(void *)field, value, err);
    case HYPERVISOR:
    case WITHOUT:
    case LEVEL:
    case FORMAT:
        return put_choice(option, config, value, err);
    }
    return error_set(err, ERR_INTERNAL, 0, "option %s has no kind", key);
}

void motted_options_print(FILE *out)
{
    for (size_t i = 0; i < COUNT_OF(options); i++)
        fprintf(out, "  --%-18s %s\n", options[i].key, options[i].help);
}

static bool same(const struct option *option, const struct motted_config *a,
                 const struct motted_config *b)
{
    const char *left = (const char *)a + option->offset, *right = (const char *)b + option->offset;
    switch (option->kind) {
    case TEXT:
    case PATH:
    case NAME: /* what lies behind the end differs by what was overwritten */
        return strcmp(left, right) == 0;
    case LISTEN:
        if (a->listen_count != b->listen_count)
            return false;
        for (size_t i = 0; i < a->listen_count; i++)
            if (strcmp(a->listen[i], b->listen[i]) != 0)
                return false;
        return true;
    case NUMBER:
    case FLAG:
    case POOL: /* all bytes behind an end are zero */
    case QUOTA:
    case RATIO:
    case HYPERVISOR:
    case WITHOUT:
    case LEVEL:
    case FORMAT:
        break;
    }
    return memcmp(left, right, option->size) == 0;
}

const char *motted_options_fixed(const struct motted_config *running,
                                 const struct motted_config *next)
{
    for (size_t i = 0; i < COUNT_OF(options); i++)
        if (!options[i].live && !same(&options[i], running, next))
            return options[i].key;
    return NULL;
}

void motted_options_take(struct motted_config *running, const struct motted_config *next, char *out,
                         size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(options); i++) {
        const struct option *option = &options[i];
        if (!option->live || same(option, running, next))
            continue;
        if (option->kind == POOL)
            running->pool_count = next->pool_count;
        else if (option->kind == QUOTA)
            running->quota_count = next->quota_count;
        memcpy((char *)running + option->offset, (const char *)next + option->offset, option->size);
        if (len < size)
            len +=
                (size_t)snprintf(out + len, size - len, "%s%s", len == 0 ? "" : ", ", option->key);
    }
}
