/* LAUNCH: one clone3 into fresh namespaces and, with cgroups of version 2, into its cgroup; with
 * version 1 the child enters by itself. It then waits until the record is written. The only place of
 * the root half that makes a process. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>

uint32_t priv_overhead_mib(const struct priv_server *server)
{
    return server->config.hypervisor == PRIV_QEMU ? PRIV_OVERHEAD_QEMU_MIB
                                                  : PRIV_OVERHEAD_FIRECRACKER_MIB;
}

/* The VMM's output holds its pipe open for reading too (O_RDWR), so that it neither gets EPIPE when
 * we die nor blocks when nobody reads; a later root half reopens it from /proc/PID/fd/1. */
int priv_console_open(int pipe_fd, struct priv_instance_slot *slot, struct priv_child *child,
                      struct error *err)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe_fd);
    child->output = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (child->output >= 0)
        slot->console = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (slot->console < 0)
        return error_set(err, ERR_LAUNCH, errno, "opening the console pipe");
    return 0;
}

/* The scratch disk is a file of the host's that the VMM may write, and so could make longer: no
 * longer than it is, or than a snapshot of the VM's memory would be. The number of open files is
 * also what the jailer sets when it is not told another. */
void priv_rlimits(const struct priv_server *server, const struct priv_shape *shape,
                  uint64_t ret[static PRIV_RLIMITS])
{
    uint64_t memory = (uint64_t)shape->memory_mib + priv_overhead_mib(server);
    ret[PRIV_RLIMIT_CORE] = 0;
    ret[PRIV_RLIMIT_FSIZE] = (memory > shape->disk_mib ? memory : shape->disk_mib) << 20;
    ret[PRIV_RLIMIT_NOFILE] = server->config.hypervisor == PRIV_QEMU ? 256 : 2048;
    ret[PRIV_RLIMIT_MEMLOCK] = 0;
}

static int prepare(struct priv_server *server, struct priv_instance_slot *slot,
                   const uint8_t *image, struct priv_child *child, struct error *err)
{
    child->uid = slot->record.uid;
    priv_rlimits(server, &slot->record.shape, child->rlimits);
    snprintf(child->base_path, sizeof(child->base_path), "%s/jail", server->run_dir);
    child->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (child->null < 0)
        return error_set(err, ERR_LAUNCH, errno, "opening /dev/null");
    return server->config.hypervisor == PRIV_QEMU
               ? priv_prepare_qemu(server, slot, image, child, err)
               : priv_prepare_firecracker(server, slot, image, child, err);
}

/* All signals stay blocked until the child has dropped the handlers it shares with us. */
static pid_t clone_child(const struct priv_child *child, struct clone_args *args)
{
    sigset_t all, saved;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
    pid_t pid = (pid_t)syscall(SYS_clone3, args, sizeof(*args));
    if (pid == 0)
        priv_child_run(child);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    errno = error;
    return pid;
}

static int start_child(struct priv_server *server, struct priv_instance_slot *slot,
                       struct priv_child *child, struct error *err)
{
    int pidfd = -1;
    struct clone_args args = {
        .flags =
            CLONE_PIDFD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        .pidfd = (uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    cleanup_close int cgroup = -1;
    if (server->cgroups.version == 2) {
        cgroup = priv_cgroup_directory(&server->cgroups, 0, slot->record.instance);
        if (cgroup < 0)
            return error_set(err, ERR_LAUNCH, errno, "opening the cgroup of the VM");
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (__u64)cgroup;
    } else if (priv_cgroup_entries(&server->cgroups, slot->record.instance, child->entries, err) <
               0) {
        return -1;
    }
    pid_t pid = clone_child(child, &args);
    if (pid < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the VM's process and namespaces");
    pthread_mutex_lock(&server->lock);
    slot->pidfd = pidfd;
    slot->child = true;
    slot->record.pid = (int32_t)pid;
    pthread_mutex_unlock(&server->lock);
    return 0;
}

/* The child enters its cgroup meanwhile, and then waits for its go: write its record first. */
static int register_child(struct priv_server *server, struct priv_instance_slot *slot,
                          struct error *err)
{
    struct priv_record *record = &slot->record;
    if (priv_proc_start(record->pid, &record->start_time, err) < 0 ||
        priv_proc_namespace(record->pid, "net", &record->netns, err) < 0)
        return -1;
    priv_slot_state(server, slot, PRIV_LAUNCHED);
    return priv_record_write(server->records, record, err);
}

/* Its end of the pair closes by itself when exec succeeds. What the child tells is closer to the
 * cause than what we noticed meanwhile. */
static int await_exec(int sync, struct error *err)
{
    struct priv_child_report report;
    ssize_t n;
    do
        n = recv(sync, &report, sizeof(report), err->code == ERR_NONE ? 0 : MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (err->code != ERR_NONE && n != (ssize_t)sizeof(report))
        return -1;
    *err = (struct error){0};
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof(report))
        return error_set(err, ERR_LAUNCH, errno, "waiting for the VMM's process");
    return error_set(err, priv_child_error(report.stage), report.sys,
                     "the VMM's process failed at %s", priv_child_stage(report.stage));
}

static int run_child(struct priv_server *server, struct priv_instance_slot *slot,
                     struct priv_child *child, struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making a socket pair");
    cleanup_close int ours = pair[0], theirs = pair[1];
    child->sync = fcntl(theirs, F_DUPFD_CLOEXEC, PRIV_MEMORY_FD + 1); /* out of their way */
    cleanup_close_func(&theirs);
    theirs = -1;
    if (child->sync < 0)
        return error_set(err, ERR_LAUNCH, errno, "copying a descriptor");
    if (start_child(server, slot, child, err) < 0)
        return -1;
    cleanup_close_func(&child->sync);
    child->sync = -1;
    if (register_child(server, slot, err) == 0 && send(ours, "g", 1, MSG_NOSIGNAL) != 1)
        error_set(err, ERR_LAUNCH, errno, "telling the VMM's process to go on");
    return await_exec(ours, err);
}

static int share(struct priv_answer *answer, int fd, struct error *err)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return error_set(err, ERR_LAUNCH, errno, "copying a descriptor");
    answer->fds[answer->fd_count++] = copy;
    return 0;
}

static int answer_launch(struct priv_instance_slot *slot, struct priv_child *child,
                         struct priv_answer *answer, struct error *err)
{
    if (share(answer, slot->pidfd, err) < 0 || share(answer, slot->console, err) < 0)
        return -1;
    slot->root = TAKE_FD(child->jail.root);
    if (child->jail.hello >= 0)
        answer->fds[answer->fd_count++] = TAKE_FD(child->jail.hello);
    if (slot->log >= 0 && share(answer, slot->log, err) < 0)
        return -1;
    memcpy(answer->reply.u.launch.token, slot->record.token, PRIV_TOKEN_SIZE);
    if (child->restore != NULL)
        memcpy(answer->reply.u.launch.snapshot_token, child->restore->meta.token, PRIV_TOKEN_SIZE);
    answer->reply.u.launch.generation = slot->record.generation;
    answer->reply.u.launch.apart = child->memory >= 0;
    return 0;
}

static int name_launch(struct priv_server *server, struct priv_instance_slot *slot,
                       const uint8_t *image, const struct priv_restore *restore, struct error *err)
{
    struct priv_record *record = &slot->record;
    uint8_t token[PRIV_TOKEN_SIZE];
    if (getrandom(token, sizeof(token), 0) != (ssize_t)sizeof(token))
        return error_set(err, ERR_LAUNCH, errno, "making the VM's token");
    pthread_mutex_lock(&server->lock);
    memcpy(record->token, token, sizeof(token));
    memcpy(record->image, image, HASH_SIZE);
    record->apart = record->hypervisor == PRIV_FIRECRACKER || slot->memory >= 0;
    if (restore != NULL) {
        memcpy(record->snapshot, restore->meta.snapshot, ID_INSTANCE_SIZE);
        memcpy(record->memory,
               restore->meta.files[priv_snapshot_memory(restore->meta.apart)].digest, HASH_SIZE);
        record->from_apart = restore->meta.apart;
        record->generation = restore->meta.generation + 1;
    }
    pthread_mutex_unlock(&server->lock);
    return 0;
}

/* What a QEMU's memory is, if that is a file. */
static int find_memory(struct priv_server *server, const struct priv_instance_slot *slot,
                       struct priv_child *child, struct error *err)
{
    if (slot->record.hypervisor != PRIV_QEMU)
        return 0;
    if (slot->memory >= 0)
        child->memory = fcntl(slot->memory, F_DUPFD_CLOEXEC, 3);
    else if (child->restore != NULL && child->restore->meta.apart)
        child->memory = priv_memory_of(server, slot, child->restore, err);
    else
        return 0;
    if (child->memory >= 0)
        return 0;
    return err->code != ERR_NONE ? -1 : error_set(err, ERR_LAUNCH, errno, "copying a descriptor");
}

static int launch(struct priv_server *server, struct priv_instance_slot *slot, const uint8_t *image,
                  const struct priv_restore *restore, struct priv_answer *answer, struct error *err)
{
    cleanup(priv_child_release) struct priv_child child;
    priv_child_init(&child);
    child.restore = restore;
    if (name_launch(server, slot, image, restore, err) < 0)
        return -1;
    if (find_memory(server, slot, &child, err) < 0 ||
        prepare(server, slot, image, &child, err) < 0 || run_child(server, slot, &child, err) < 0)
        return -1;
    unlinkat(server->scratch, slot->record.instance, 0); /* mounted: see jail.c */
    return answer_launch(slot, &child, answer, err);
}

static int make_template(struct priv_instance_slot *slot, struct error *err)
{
    if (slot->record.hypervisor != PRIV_QEMU)
        return 0;
    slot->memory = priv_memory_make((uint64_t)slot->record.shape.memory_mib << 20, err);
    return slot->memory < 0 ? -1 : 0;
}

/* A snapshot that does not fit costs the instance nothing: another may be tried, or a boot. */
int priv_op_launch(struct priv_server *server, struct priv_instance_slot *slot,
                   const struct priv_request *request, struct priv_answer *answer,
                   struct error *err)
{
    const uint8_t *image = request->u.launch.image;
    const char *snapshot = request->u.launch.snapshot;
    cleanup(priv_restore_release) struct priv_restore restore;
    priv_restore_init(&restore);
    if (snapshot[0] != '\0' && priv_restore_open(server, slot, image, snapshot, &restore, err) < 0)
        return -1;
    if (request->u.launch.as_template && make_template(slot, err) < 0)
        return -1;
    if (launch(server, slot, image, snapshot[0] == '\0' ? NULL : &restore, answer, err) == 0)
        return 0;
    struct error ignored = {0}; /* KILL tries again and tells */
    priv_undo(server, slot, slot->record.instance, NULL, &ignored);
    priv_slot_state(server, slot, PRIV_DEAD);
    return -1;
}
