/* motte-admin: the operator's short-lived program. Catalogue, doctor, leftovers. */
#include "admin/internal.h"

struct command {
    const char *words[2]; /* the second may be NULL */
    const char *operands;
    const char *about;
    int (*run)(const struct admin *admin, struct error *err);
};

static const struct command commands[] = {
    {{"image", "add"},
     "FILE|DIR [--name NAME] [--kernel NAME] [--replace] [--raw]",
     "add a squashfs, or a directory to pack as one, to the catalogue; its name is the file's,\n"
     "        its kernel the only one there is",
     admin_image_add},
    {{"image", "list"}, "[--json]", "what VMs can be made from", admin_image_list},
    {{"image", "remove"}, "NAME", "running VMs keep what they have", admin_image_remove},
    {{"kernel", "add"},
     "DIR --name NAME [--replace]",
     "DIR holds vmlinux and, if wanted, initrd, scratch, boot_args",
     admin_kernel_add},
    {{"kernel", "list"}, "[--json]", "what images boot with", admin_kernel_list},
    {{"kernel", "remove"}, "NAME", "refused while an image names it", admin_kernel_remove},
    {{"doctor", NULL},
     "[--json]",
     "what this host lacks and what to do; exit 1 if no VM could run",
     admin_doctor},
    {{"leftovers", NULL},
     "[--json]",
     "what VMs that are gone left behind; exit 1 if anything",
     admin_leftovers},
    {{"backup", NULL}, "FILE", "a copy of the inventory, also while motted runs", admin_backup},
    {{"restore", NULL},
     "FILE",
     "such a copy in the place of the inventory, while motted is stopped",
     admin_restore},
    {{"token", "create"},
     "NAME [--role read|operate|admin] [--tenant NAME] [--rate N]",
     "prints the secret, once; who shows it over TCP is that tenant (NAME), in that role "
     "(operate),\n"
     "        with N requests a second, and twice as many at once (any number)",
     admin_token_create},
    {{"token", "list"}, "[--json]", "whose tokens there are", admin_token_list},
    {{"token", "revoke"}, "NAME", "from then on this one is refused", admin_token_revoke},
};

static void usage(FILE *out)
{
    fprintf(out, "Usage: motted COMMAND [OPTION]...\n\n");
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        fprintf(out, "  %s%s%s %s\n        %s\n", commands[i].words[0],
                commands[i].words[1] != NULL ? " " : "",
                commands[i].words[1] != NULL ? commands[i].words[1] : "", commands[i].operands,
                commands[i].about);
    fprintf(out, "\nOptions, as motted has them:\n"
                 "  --state-dir=DIR   /var/lib/motte    --run-dir=DIR    /run/motte\n"
                 "  --cgroup=NAME     motte             --uid-base=N     1879048192\n"
                 "  --firecracker=FILE  --jailer=FILE  --qemu=FILE\n"
                 "  --token-file=FILE /etc/motte/tokens\n");
}

/* The command that the arguments name, and how many words that took. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        int words = commands[i].words[1] != NULL ? 2 : 1;
        bool same = argc > words && strcmp(argv[1], commands[i].words[0]) == 0 &&
                    (words == 1 || strcmp(argv[2], commands[i].words[1]) == 0);
        if (same) {
            *ret_words = words;
            return &commands[i];
        }
    }
    return NULL;
}

/* Wherever it stands: `motted image --help` too. */
static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (wants_help(argc, argv)) {
        usage(stdout);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("motte-admin %s\n", MOTTE_VERSION);
        return 0;
    }
    int words = 0;
    const struct command *command = find_command(argc, argv, &words);
    if (command == NULL) {
        usage(stderr);
        return 2;
    }
    struct admin admin = {0};
    struct error err = {0};
    int status = admin_options(&admin, argc - words, argv + words, &err);
    if (status == 0)
        status = command->run(&admin, &err);
    if (status < 0) {
        fprintf(stderr, "motte-admin: %s (%s)\n", err.msg, error_code_name(err.code));
        return 2;
    }
    return fflush(stdout) == 0 ? status : 2;
}
