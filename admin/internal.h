/* What the files of motte-admin share. */
#ifndef MOTTE_ADMIN_INTERNAL_H
#define MOTTE_ADMIN_INTERNAL_H

#include "image/image.h"
#include "json/json.h"

/* ---- options.c ------------------------------------------------------------------------------ */

struct admin {
    const char *state_dir, *run_dir, *cgroup;
    const char *firecracker, *jailer, *qemu; /* NULL: look for them */
    uint32_t uid_base, uid_count;
    const char *name, *kernel; /* --name, --kernel */
    const char *token_file, *role, *tenant;
    uint32_t rate; /* --rate; 0: none */
    bool json, raw, replace;
    const char *operand; /* FILE, DIR or NAME; NULL if none was given */
};

/* Reads the arguments after the command's words. Strings are borrowed from argv. */
int admin_options(struct admin *admin, int argc, char **argv, struct error *err);

/* ---- run.c ---------------------------------------------------------------------------------- */

/* Runs a program by argv (never a shell), stdin from /dev/null, its standard output into `out`
 * (what does not fit is dropped), its standard error to ours. Returns the exit status, 128 + n
 * after signal n, or -1. */
int admin_run(const char *const *argv, char *out, size_t size, struct error *err);
/* The first executable `name` in PATH and a few usual folders; false if there is none. */
bool admin_find_program(const char *name, char out[static 256]);

/* ---- stage.c: a directory of the catalogue is made aside and published by rename --------------
 */

struct admin_stage {
    int state;    /* the state directory */
    int incoming; /* STATE/incoming, locked while the stage is open */
    int dir;      /* STATE/incoming/NAME */
    char name[ID_INSTANCE_SIZE];
};
#define ADMIN_STAGE_INIT                                                                           \
    {                                                                                              \
        .state = -1, .incoming = -1, .dir = -1                                                     \
    }

/* Makes the state directory if need be, takes the lock (one writer at a time), clears what a killed
 * run left. */
int admin_stage_open(const struct admin *admin, struct admin_stage *stage, struct error *err);
/* Removes what was not published. */
void admin_stage_release(struct admin_stage *stage);
/* Copies a regular file (borrowed) into the stage as `file`, holes kept, fsynced, 0444. */
int admin_stage_copy(const struct admin_stage *stage, int from, const char *file,
                     struct error *err);
/* Seals a file that is already in the stage: fsync, 0444 root, its digest and size. */
int admin_stage_seal(const struct admin_stage *stage, const char *file,
                     uint8_t digest[static HASH_SIZE], uint64_t *ret_size, struct error *err);
/* Writes the manifest and renames the stage to KIND/NAME. An existing one is exchanged and removed
 * if `replace`, else an error. */
int admin_stage_publish(struct admin_stage *stage, const char *kind, const char *name,
                        const char *manifest, bool replace, struct error *err);
/* Removes KIND/NAME: out of sight by one rename, then deleted. ERR_NOT_FOUND. */
int admin_stage_retract(struct admin_stage *stage, const char *kind, const char *name,
                        struct error *err);

/* ---- elf.c ---------------------------------------------------------------------------------- */

/* Refuses what is not a 64-bit x86 ELF with a PVH entry note: both hypervisors boot that. */
int admin_elf_check(int fd, const char *where, struct error *err);

/* ---- cgroup.c: where this host's controllers are ----------------------------------------------
 */

enum { ADMIN_CONTROLLERS = 3, ADMIN_HIERARCHIES }; /* version 1's blkio may be missing */
extern const char *const admin_controllers[ADMIN_HIERARCHIES]; /* memory, cpu, pids, blkio */

struct admin_cgroups {
    bool unified[ADMIN_CONTROLLERS]; /* the v2 hierarchy has the controller */
    char v1[ADMIN_HIERARCHIES][256]; /* mount point of its v1 hierarchy, or "" */
    char v2[256];                    /* mount point of the v2 hierarchy, or "" */
};
int admin_cgroups_find(struct admin_cgroups *ret, struct error *err);
/* Version with all three controllers: 1, 2, or 0. */
int admin_cgroups_version(const struct admin_cgroups *cgroups);

/* ---- report.c: what the doctor found ----------------------------------------------------------
 */

enum admin_level { ADMIN_OK, ADMIN_NOTE, ADMIN_WARN, ADMIN_LACKS };
/* Whom a lack stops. */
enum admin_scope { ADMIN_NOBODY = 0, ADMIN_FIRECRACKER = 1, ADMIN_EMULATION = 2, ADMIN_BOTH = 3 };

struct admin_check {
    const char *name;
    enum admin_level level;
    enum admin_scope scope;
    char found[256];
    const char *remedy; /* what to do; not shown when all is well */
};

enum { ADMIN_CHECKS_MAX = 40 };
struct admin_report {
    struct admin_check checks[ADMIN_CHECKS_MAX];
    size_t count;
};

void admin_report_add(struct admin_report *report, const char *name, enum admin_level level,
                      enum admin_scope scope, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The hypervisor of this scope can work: nothing it needs is lacking. */
bool admin_report_works(const struct admin_report *report, enum admin_scope scope);
int admin_report_print(const struct admin_report *report, bool json, struct error *err);

void admin_doctor_kernel(struct admin_report *report);
void admin_doctor_cgroup(struct admin_report *report);
void admin_doctor_kvm(struct admin_report *report);
void admin_doctor_programs(const struct admin *admin, struct admin_report *report);
void admin_doctor_users(const struct admin *admin, struct admin_report *report);
void admin_doctor_catalogue(const struct admin *admin, struct admin_report *report);
void admin_doctor_firewall(const struct admin *admin, struct admin_report *report);

/* ---- records.c, leftovers ----------------------------------------------------------------------
 */

/* Instances that run: their record is whole, of this boot, and its process is the one launched. */
struct admin_live {
    char (*instances)[ID_INSTANCE_SIZE]; /* owned */
    uint32_t *uids;                      /* owned */
    size_t count;
};
int admin_live_load(const struct admin *admin, struct admin_live *ret, struct error *err);
void admin_live_release(struct admin_live *live);
/* Is this entry of /proc a process with a VM's uid? Its status text and uid, if so. */
bool admin_process_of_vm(const struct admin *admin, const char *pid, char *status, size_t size,
                         uint32_t *ret_uid);
bool admin_live_has(const struct admin_live *live, const char *instance);

enum admin_kind { ADMIN_PROCESS, ADMIN_CGROUP, ADMIN_CHAIN, ADMIN_MOUNT, ADMIN_FILE, ADMIN_KINDS };
/* A list of what was found, as JSON: {"processes": [...], "cgroups": [...] …}. */
struct admin_found {
    cJSON *lists[ADMIN_KINDS]; /* borrowed from `json` */
    cJSON *spares; /* borrowed: chains that motted made ahead, or is about to remove; not counted */
    cJSON *json;   /* owned */
    size_t count;
};
int admin_found_add(struct admin_found *found, enum admin_kind kind, const char *text,
                    struct error *err);
/* A chain is one, in however many tables it is seen. */
int admin_found_spare(struct admin_found *found, const char *chain, struct error *err);
int admin_scan_processes(const struct admin *admin, const struct admin_live *live,
                         struct admin_found *found, struct error *err);
int admin_scan_cgroups(const struct admin *admin, const struct admin_live *live,
                       struct admin_found *found, struct error *err);
/* Those in run_dir/priv/spares are spare, not left over. */
int admin_scan_chains(const struct admin *admin, const struct admin_live *live,
                      struct admin_found *found, struct error *err);
int admin_scan_mounts(const struct admin *admin, const struct admin_live *live,
                      struct admin_found *found, struct error *err);
int admin_scan_files(const struct admin *admin, const struct admin_live *live,
                     struct admin_found *found, struct error *err);

/* ---- reload.c --------------------------------------------------------------------------------- */

/* Lets a motted that runs read its tokens again, and says whether it took them from `token_file`: the
 * exit status, 1 when it did not. */
int admin_reload(const struct admin *admin, struct error *err);

/* ---- commands: the exit status, or -1 with an error ---------------------------------------------
 */

int admin_image_add(const struct admin *admin, struct error *err);
int admin_image_list(const struct admin *admin, struct error *err);
int admin_image_remove(const struct admin *admin, struct error *err);
/* The name of the one kernel there is; an error when there is none, or a choice. */
int admin_kernel_only(int state, char out[static ID_NAME_MAX + 1], struct error *err);
int admin_kernel_add(const struct admin *admin, struct error *err);
int admin_kernel_list(const struct admin *admin, struct error *err);
int admin_kernel_remove(const struct admin *admin, struct error *err);
int admin_doctor(const struct admin *admin, struct error *err);
int admin_leftovers(const struct admin *admin, struct error *err);
int admin_backup(const struct admin *admin, struct error *err);
int admin_restore(const struct admin *admin, struct error *err);
int admin_token_create(const struct admin *admin, struct error *err);
int admin_token_list(const struct admin *admin, struct error *err);
int admin_token_revoke(const struct admin *admin, struct error *err);

#endif
