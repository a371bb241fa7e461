/* Options of motte-admin: the same names and defaults as motted's. */
#include "admin/internal.h"

#include <getopt.h>

enum { UID_BASE = 1879048192, UID_COUNT = 65536 };

enum option_id {
    OPTION_STATE_DIR = 1,
    OPTION_RUN_DIR,
    OPTION_CGROUP,
    OPTION_UID_BASE,
    OPTION_FIRECRACKER,
    OPTION_JAILER,
    OPTION_QEMU,
    OPTION_NAME,
    OPTION_KERNEL,
    OPTION_JSON,
    OPTION_RAW,
    OPTION_REPLACE,
    OPTION_TOKEN_FILE,
    OPTION_ROLE,
    OPTION_TENANT,
    OPTION_RATE,
};

static const struct option options[] = {
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"run-dir", required_argument, NULL, OPTION_RUN_DIR},
    {"cgroup", required_argument, NULL, OPTION_CGROUP},
    {"uid-base", required_argument, NULL, OPTION_UID_BASE},
    {"firecracker", required_argument, NULL, OPTION_FIRECRACKER},
    {"jailer", required_argument, NULL, OPTION_JAILER},
    {"qemu", required_argument, NULL, OPTION_QEMU},
    {"name", required_argument, NULL, OPTION_NAME},
    {"kernel", required_argument, NULL, OPTION_KERNEL},
    {"json", no_argument, NULL, OPTION_JSON},
    {"raw", no_argument, NULL, OPTION_RAW},
    {"replace", no_argument, NULL, OPTION_REPLACE},
    {"token-file", required_argument, NULL, OPTION_TOKEN_FILE},
    {"role", required_argument, NULL, OPTION_ROLE},
    {"tenant", required_argument, NULL, OPTION_TENANT},
    {"rate", required_argument, NULL, OPTION_RATE},
    {NULL, 0, NULL, 0},
};

static int take_uid_base(struct admin *admin, const char *value, struct error *err)
{
    uint64_t base = 0;
    if (kv_number("--uid-base", value, 65536, UINT32_MAX - UID_COUNT, &base, err) < 0)
        return -1;
    admin->uid_base = (uint32_t)base;
    return 0;
}

static int take_rate(struct admin *admin, const char *value, struct error *err)
{
    uint64_t rate = 0;
    if (kv_number("--rate", value, 1, TOKEN_RATE_MAX, &rate, err) < 0)
        return -1;
    admin->rate = (uint32_t)rate;
    return 0;
}

static int take_flag(struct admin *admin, int option)
{
    if (option == OPTION_JSON)
        admin->json = true;
    else if (option == OPTION_RAW)
        admin->raw = true;
    else
        admin->replace = true;
    return 0;
}

static const char **text_of(struct admin *admin, int option)
{
    switch (option) {
    case OPTION_STATE_DIR:
        return &admin->state_dir;
    case OPTION_RUN_DIR:
        return &admin->run_dir;
    case OPTION_CGROUP:
        return &admin->cgroup;
    case OPTION_FIRECRACKER:
        return &admin->firecracker;
    case OPTION_JAILER:
        return &admin->jailer;
    case OPTION_QEMU:
        return &admin->qemu;
    case OPTION_NAME:
        return &admin->name;
    case OPTION_KERNEL:
        return &admin->kernel;
    case OPTION_TOKEN_FILE:
        return &admin->token_file;
    case OPTION_ROLE:
        return &admin->role;
    case OPTION_TENANT:
        return &admin->tenant;
    default:
        return NULL;
    }
}

static int take(struct admin *admin, int option, const char *value, struct error *err)
{
    const char **text = text_of(admin, option);
    if (text != NULL) {
        *text = value;
        return 0;
    }
    if (option == OPTION_RATE)
        return take_rate(admin, value, err);
    return option == OPTION_UID_BASE ? take_uid_base(admin, value, err) : take_flag(admin, option);
}

int admin_options(struct admin *admin, int argc, char **argv, struct error *err)
{
    *admin = (struct admin){
        .state_dir = "/var/lib/motte",
        .run_dir = "/run/motte",
        .cgroup = "motte",
        .uid_base = UID_BASE,
        .uid_count = UID_COUNT,
        .token_file = "/etc/motte/tokens",
        .role = "operate",
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == '?')
            return error_set(err, ERR_CONFIG, 0, "See `motted image --help`");
        if (take(admin, option, optarg, err) < 0)
            return -1;
    }
    if (optind < argc)
        admin->operand = argv[optind++];
    if (optind < argc)
        return error_set(err, ERR_CONFIG, 0, "`%.80s` is one argument too many", argv[optind]);
    if (admin->state_dir[0] != '/' || admin->run_dir[0] != '/')
        return error_set(err, ERR_CONFIG, 0, "--state-dir and --run-dir must be absolute paths");
    if (!id_name_valid(admin->cgroup))
        return error_set(err, ERR_CONFIG, 0, "--cgroup must be a name of [a-z0-9._-], not `%.40s`",
                         admin->cgroup);
    return 0;
}
