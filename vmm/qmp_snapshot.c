/* Snapshots by QEMU's monitor: what it calls a migration, into a file and from one. (QEMU
 * qapi/migration.json.) QEMU answers `migrate` at once, and an event says when it is done. */
#include "vmm/qmp_internal.h"

#include <poll.h>

enum { SETTLE_MS = 1 };

/* Under way are setup, active, device and others that later versions may have. */
static enum vmm_qmp_migration migration_of(const char *status)
{
    if (status == NULL || strcmp(status, "none") == 0)
        return VMM_QMP_QUIET;
    if (strcmp(status, "completed") == 0)
        return VMM_QMP_COMPLETED;
    bool failed = strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0;
    return failed ? VMM_QMP_FAILED : VMM_QMP_GOING;
}

static const char *text_of(const cJSON *json, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
}

void vmm_qmp_hear(struct qmp *qmp, const cJSON *line)
{
    const char *event = text_of(line, "event");
    if (event != NULL && strcmp(event, "MIGRATION") == 0)
        qmp->migration =
            migration_of(text_of(cJSON_GetObjectItemCaseSensitive(line, "data"), "status"));
}

static int await_end(struct qmp *qmp, struct error *err)
{
    while (qmp->migration == VMM_QMP_QUIET || qmp->migration == VMM_QMP_GOING) {
        cleanup_json cJSON *line = NULL;
        if (vmm_qmp_read(qmp, &line, err) < 0)
            return -1;
        vmm_qmp_hear(qmp, line);
    }
    return 0;
}

static int rest(const struct qmp *qmp, struct error *err)
{
    if (clock_left_ms(qmp->deadline_ms) == 0)
        return error_set(err, ERR_HYPERVISOR_TIMEOUT, 0, "QEMU does not end a snapshot");
    poll(NULL, 0, SETTLE_MS);
    return 0;
}

/* The event comes a moment before QEMU has put its state in order; `cont` is refused in between. */
static int settle(struct qmp *qmp, struct error *err)
{
    for (;;) {
        cleanup_json cJSON *status = NULL;
        if (vmm_qmp_execute(qmp, "query-status", NULL, &status, err) < 0)
            return -1;
        const char *name = text_of(status, "status");
        if (name == NULL || strcmp(name, "finish-migrate") != 0)
            return 0;
        if (rest(qmp, err) < 0)
            return -1;
    }
}

/* What is not QEMU's alone is then left out. */
static int begin(struct qmp *qmp, bool apart, struct error *err)
{
    char capabilities[160];
    snprintf(capabilities, sizeof(capabilities),
             "{\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
             "{\"capability\":\"x-ignore-shared\",\"state\":%s}]}",
             apart ? "true" : "false");
    qmp->migration = VMM_QMP_QUIET;
    return vmm_qmp_execute(qmp, "migrate-set-capabilities", capabilities, NULL, err);
}

/* After a snapshot QEMU stands as one whose guest has gone elsewhere, and makes no other of it before
 * that guest has been let go on here: for a moment, when its owner had it paused. */
static int stand_again(struct qmp *qmp, struct error *err)
{
    cleanup_json cJSON *status = NULL;
    if (vmm_qmp_execute(qmp, "query-status", NULL, &status, err) < 0)
        return -1;
    const char *name = text_of(status, "status");
    if (name == NULL || strcmp(name, "postmigrate") != 0)
        return 0;
    return vmm_qmp_execute(qmp, "cont", NULL, NULL, err) < 0
               ? -1
               : vmm_qmp_execute(qmp, "stop", NULL, NULL, err);
}

static int save(struct qmp *qmp, int file, bool apart, struct error *err)
{
    static const char fast[] =
        "{\"max-bandwidth\":1099511627776}"; /* nothing else waits for the disk */
    if (stand_again(qmp, err) < 0 || begin(qmp, apart, err) < 0 ||
        vmm_qmp_execute(qmp, "migrate-set-parameters", fast, NULL, err) < 0 ||
        vmm_qmp_lend(qmp, file, "snapshot", err) < 0 ||
        vmm_qmp_execute(qmp, "migrate", "{\"uri\":\"fd:snapshot\"}", NULL, err) < 0 ||
        await_end(qmp, err) < 0 || settle(qmp, err) < 0)
        return -1;
    if (qmp->migration == VMM_QMP_COMPLETED)
        return 0;
    return error_set(err, ERR_HYPERVISOR, 0, "QEMU could not write the snapshot");
}

/* Where it does not fit QEMU ends. */
static int load(struct qmp *qmp, bool apart, struct error *err)
{
    char uri[32];
    snprintf(uri, sizeof(uri), "{\"uri\":\"fd:%d\"}", PRIV_RESTORE_FD);
    if (begin(qmp, apart, err) < 0 ||
        vmm_qmp_execute(qmp, "migrate-incoming", uri, NULL, err) < 0 || await_end(qmp, err) < 0)
        return -1;
    if (qmp->migration == VMM_QMP_COMPLETED)
        return 0;
    return error_set(err, ERR_HYPERVISOR, 0, "QEMU could not read the snapshot");
}

/* One that nobody waits for any more would stop the guest again when it is through. */
static int give_up(struct qmp *qmp, struct error *err)
{
    for (bool cancelled = false;; cancelled = true) {
        cleanup_json cJSON *migration = NULL;
        if (vmm_qmp_execute(qmp, "query-migrate", NULL, &migration, err) < 0)
            return -1;
        if (migration_of(text_of(migration, "status")) != VMM_QMP_GOING)
            return settle(qmp, err);
        if (!cancelled && vmm_qmp_execute(qmp, "migrate_cancel", NULL, NULL, err) < 0)
            return -1;
        if (rest(qmp, err) < 0)
            return -1;
    }
}

static int go_on(struct qmp *qmp, struct error *err)
{
    return give_up(qmp, err) < 0 ? -1 : vmm_qmp_execute(qmp, "cont", NULL, NULL, err);
}

static struct qmp *talk(int fd, int timeout_ms, struct error *err)
{
    return fd < 0 ? NULL : vmm_qmp_open(fd, clock_mono_ms() + timeout_ms, err);
}

int vmm_qmp_save(int socket_fd, int file, bool apart, int timeout_ms, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    cleanup_free struct qmp *qmp = talk(fd, timeout_ms, err);
    return qmp == NULL ? -1 : save(qmp, file, apart, err);
}

int vmm_qmp_load(int socket_fd, int gone, bool apart, int timeout_ms, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    cleanup_free struct qmp *qmp = talk(fd, timeout_ms, err);
    if (qmp == NULL)
        return -1;
    qmp->gone = gone;
    return load(qmp, apart, err);
}

int vmm_qmp_resume(int socket_fd, int timeout_ms, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    cleanup_free struct qmp *qmp = talk(fd, timeout_ms, err);
    return qmp == NULL ? -1 : go_on(qmp, err);
}
