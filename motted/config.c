/* Configuration: defaults, then a root-owned file of `key = value` lines, then the arguments. */
#include "motted/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { FILE_MAX_BYTES = 65536 };

static const char config_option[] = "--config=";

static void set_defaults(struct motted_config *config)
{
    *config = (struct motted_config){
        .state_dir = "/var/lib/motte",
        .run_dir = "/run/motte",
        .firecracker = "/usr/local/bin/firecracker",
        .jailer = "/usr/local/bin/jailer",
        .qemu = "/usr/bin/qemu-system-x86_64",
        .front_user = "motte",
        .default_image = "python",
        .cgroup = "motte",
        .log_level = LOG_LEVEL_INFO,
        .uid_base = 1879048192,
        .uid_count = 65536,
        .max_vms = 1000,
        .max_vcpus = 32,
        .max_disk_mib = 16384,
        .max_snapshots = 100,
        .image_snapshots = 8,
        .max_io_mib_s = 512,
        .max_iops = 20000,
        .boot_timeout_ms = 60000,
        .answer_timeout_ms = 2000,
        .memory_overcommit = 1.0,
    };
}

static int handle(void *context, const char *key, const char *value, struct error *err)
{
    return motted_option(context, key, value, err);
}

/* Whoever can write it decides what root does. */
static int read_file(struct motted_config *config, const char *path, struct error *err)
{
    struct stat st;
    cleanup_free char *text = malloc(FILE_MAX_BYTES);
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (text == NULL || fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_CONFIG, errno, "opening %s", path);
    if (!S_ISREG(st.st_mode) || st.st_uid != 0 || (st.st_mode & 022) != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "%s must be a file of root's that nobody else can write: chown root:root "
                         "and chmod go-w it",
                         path);
    ssize_t len = read(fd, text, FILE_MAX_BYTES - 1);
    if (len < 0 || len == FILE_MAX_BYTES - 1)
        return error_set(err, ERR_CONFIG, len < 0 ? errno : EFBIG, "reading %s", path);
    text[len] = '\0';
    return kv_parse(text, path, handle, config, err);
}

static int read_argument(struct motted_config *config, const char *argument, struct error *err)
{
    char key[64];
    const char *equals = strchr(argument, '=');
    size_t len = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    if (strncmp(argument, "--", 2) != 0 || len - 2 >= sizeof(key))
        return error_set(err, ERR_CONFIG, 0,
                         "`%.60s` is no option and no command; see motted --help", argument);
    snprintf(key, sizeof(key), "%.*s", (int)(len - 2), argument + 2);
    if (equals == NULL && motted_option_wants_value(key))
        return error_set(err, ERR_CONFIG, 0, "--%s wants a value: --%s=…", key, key);
    return motted_option(config, key, equals == NULL ? "true" : equals + 1, err);
}

/* Options that say what to do in the place of running; never in a file. */
static bool read_action(struct motted_config *config, const char *argument)
{
    if (strcmp(argument, "--purge") == 0)
        config->purge = true;
    else if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0)
        config->help = true;
    else if (strcmp(argument, "--version") == 0)
        config->version = true;
    else
        return strncmp(argument, config_option, sizeof(config_option) - 1) == 0;
    return true;
}

static bool any_starts(int argc, char *const *argv, const char *start, const char **ret_rest)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], start, strlen(start)) != 0)
            continue;
        *ret_rest = argv[i] + strlen(start);
        return true;
    }
    return false;
}

int motted_config_read(struct motted_config *config, int argc, char *const *argv, struct error *err)
{
    const char *rest = NULL;
    set_defaults(config);
    if (any_starts(argc, argv, config_option, &rest) && read_file(config, rest, err) < 0)
        return -1;
    if (any_starts(argc, argv, "--listen=", &rest))
        config->listen_count = 0; /* the command line's in the place of the file's */
    for (int i = 1; i < argc; i++)
        if (!read_action(config, argv[i]) && read_argument(config, argv[i], err) < 0)
            return -1;
    if (config->listen_count == 0) {
        int n =
            snprintf(config->listen[0], MOTTED_TEXT_MAX, "unix:%.200s/motte.sock", config->run_dir);
        config->listen_count = n > 0;
    }
    return 0;
}
