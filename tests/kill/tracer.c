/*
 * kill_tracer LOG MODE [POINT OCCURRENCE] -- PROGRAM ARGUMENT...
 *
 * Becomes PROGRAM, traced by a process of its own from before its first instruction. LOG gets
 * "tracer PID", then what MODE says:
 *   record       each point, from SIGUSR1 to the tracer on ("armed" tells that it came)
 *   record-all   each point from the start
 *   before|after kills at the OCCURRENCEth POINT after SIGUSR1, before or after the call is made:
 *                the half that made it, and with a trailing '+' (before+) both at once
 *   …-all        the same from the start
 *   orders:FILE  what FILE says, at the start and whenever SIGUSR1 comes ("order N" tells that it
 *                was read): "off", "record" (each point that can fail, with its errors), or
 *                "fail once|sticky NTH ERROR POINT"; what was made to fail is told as "failed"
 * A kill is told as "killed". VMMs are let go when they are executed.
 */
#include "tracer.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    TASKS_MAX = 1024,
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
              PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC
};

struct task {
    pid_t tid;
    enum role role;
    bool chosen; /* the call it is in is the one to kill after */
    int error;   /* the call it is in fails */
};

struct tracer {
    FILE *log;
    bool kill, after, both;
    const char *point;
    unsigned long left; /* until the chosen occurrence; 0: done */
    const char *orders; /* a file, or NULL */
    unsigned long order_count;
    struct faults faults;
    pid_t root, front;
    struct task tasks[TASKS_MAX];
    size_t count;
};

/* Set by SIGUSR1's handler. */
static volatile sig_atomic_t armed;

static void arm(int number)
{
    (void)number;
    armed = 1;
}

static pid_t group_of(pid_t tid)
{
    char path[64], line[128];
    int group = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", tid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "Tgid: %d", &group) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return group;
}

static bool is_program(pid_t pid, const char *name)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(text, sizeof(text), file) != NULL)
        text[strcspn(text, "\n")] = '\0';
    if (file != NULL)
        fclose(file);
    return strcmp(text, name) == 0;
}

static struct task *task_of(struct tracer *tracer, pid_t tid)
{
    for (size_t i = 0; i < tracer->count; i++)
        if (tracer->tasks[i].tid == tid)
            return &tracer->tasks[i];
    if (tracer->count == TASKS_MAX)
        exit(3);
    pid_t group = group_of(tid);
    enum role role = group == tracer->root    ? ROLE_ROOT
                     : group == tracer->front ? ROLE_FRONT
                                              : ROLE_CHILD;
    tracer->tasks[tracer->count] = (struct task){.tid = tid, .role = role};
    return &tracer->tasks[tracer->count++];
}

static void forget(struct tracer *tracer, pid_t tid)
{
    for (size_t i = 0; i < tracer->count; i++)
        if (tracer->tasks[i].tid == tid)
            tracer->tasks[i] = tracer->tasks[--tracer->count];
}

static void tell(struct tracer *tracer, const char *line)
{
    fprintf(tracer->log, "%s\n", line);
    fflush(tracer->log);
}

/* A child is a part of the root half: its points kill that. */
static void strike(struct tracer *tracer, const struct task *task)
{
    if (tracer->both || task->role != ROLE_FRONT)
        kill(tracer->root, SIGKILL);
    if (tracer->front > 0 && (tracer->both || task->role == ROLE_FRONT))
        kill(tracer->front, SIGKILL);
    tracer->left = 0;
    tell(tracer, "killed");
}

static void at_kill(struct tracer *tracer, struct task *task, const struct point *point)
{
    if (!armed || !point->changes)
        return;
    if (!tracer->kill) {
        tell(tracer, point->name);
    } else if (tracer->left > 0 && strcmp(point->name, tracer->point) == 0 && --tracer->left == 0) {
        if (tracer->after)
            task->chosen = true;
        else
            strike(tracer, task);
    }
}

static void at_fault(struct tracer *tracer, struct task *task, const struct point *point)
{
    char line[POINT_MAX + 64];
    if (tracer->faults.mode == FAULTS_RECORD) {
        snprintf(line, sizeof(line), "%s|%d %d %d", point->name, point->errors[0], point->errors[1],
                 point->errors[2]);
        tell(tracer, line);
        return;
    }
    task->error = faults_of(&tracer->faults, task->role, point);
    if (task->error == 0)
        return;
    faults_begin(task->tid, task->error);
    snprintf(line, sizeof(line), "failed %d %s", task->error, point->name);
    tell(tracer, line);
}

static void at_entry(struct tracer *tracer, struct task *task,
                     const struct __ptrace_syscall_info *info)
{
    struct point point;
    uint64_t args[6];
    memcpy(args, info->entry.args, sizeof(args));
    if ((!armed && tracer->faults.mode == FAULTS_OFF) ||
        !point_of(task->tid, task->role, info->entry.nr, args, &point))
        return;
    if (tracer->faults.mode == FAULTS_OFF)
        at_kill(tracer, task, &point);
    else
        at_fault(tracer, task, &point);
}

static void at_call(struct tracer *tracer, pid_t tid)
{
    struct __ptrace_syscall_info info;
    struct task *task = task_of(tracer, tid);
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        at_entry(tracer, task, &info);
    } else if (task->error != 0) {
        faults_end(tid, task->error);
        task->error = 0;
    } else if (task->chosen) {
        task->chosen = false;
        strike(tracer, task);
    }
}

/* The front is followed; anything else that is executed is a VMM or a tool and let go. */
static bool let_go(struct tracer *tracer, pid_t pid)
{
    if (pid == tracer->root)
        return false;
    if (is_program(pid, "motte-front")) {
        tracer->front = pid;
        task_of(tracer, pid)->role = ROLE_FRONT;
        return false;
    }
    if (task_of(tracer, pid)->chosen) /* after execve: there is no other end of that call */
        strike(tracer, task_of(tracer, pid));
    return ptrace(PTRACE_DETACH, pid, 0, 0) == 0;
}

static void go_on(struct tracer *tracer, pid_t tid, int status)
{
    int number = WSTOPSIG(status), event = status >> 16;
    long with = 0;
    if (number == (SIGTRAP | 0x80))
        at_call(tracer, tid);
    else if (event == PTRACE_EVENT_EXEC && let_go(tracer, tid)) {
        forget(tracer, tid);
        return;
    } else if (event == PTRACE_EVENT_STOP &&
               (number == SIGSTOP || number == SIGTSTP || number == SIGTTIN || number == SIGTTOU)) {
        ptrace(PTRACE_LISTEN, tid, 0, 0);
        return;
    } else if (event == 0) {
        with = number;
    }
    ptrace(PTRACE_SYSCALL, tid, 0, with);
}

static void take_order(struct tracer *tracer)
{
    char line[POINT_MAX + 64] = "";
    FILE *file = fopen(tracer->orders, "re");
    if (file == NULL || fgets(line, sizeof(line), file) == NULL ||
        !faults_order(&tracer->faults, line))
        exit(4);
    fclose(file);
    snprintf(line, sizeof(line), "order %lu", ++tracer->order_count);
    tell(tracer, line);
}

/* SIGUSR1 has come. */
static void obey(struct tracer *tracer)
{
    armed = tracer->orders == NULL ? 2 : 0;
    if (tracer->orders == NULL)
        tell(tracer, "armed");
    else
        take_order(tracer);
}

static void follow(struct tracer *tracer)
{
    for (;;) {
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);
        int error = errno;
        if (armed == 1)
            obey(tracer);
        if (tid < 0 && error == EINTR)
            continue;
        if (tid < 0)
            return;
        if (WIFSTOPPED(status))
            go_on(tracer, tid, status);
        else
            forget(tracer, tid);
    }
}

static void trace(struct tracer *tracer, const char *log, const int go[2])
{
    struct sigaction action = {.sa_handler = arm};
    sigaction(SIGUSR1, &action, NULL);
    tracer->log = fopen(log, "ae");
    if (tracer->log == NULL || ptrace(PTRACE_SEIZE, tracer->root, 0, OPTIONS) < 0 ||
        ptrace(PTRACE_INTERRUPT, tracer->root, 0, 0) < 0) {
        perror("kill_tracer");
        _exit(2);
    }
    fprintf(tracer->log, "tracer %d\n", getpid());
    fflush(tracer->log);
    if (tracer->orders != NULL)
        take_order(tracer);
    if (write(go[1], "g", 1) != 1)
        _exit(2);
    close(go[0]);
    close(go[1]);
    follow(tracer);
    _exit(0);
}

static void parse(struct tracer *tracer, char **argv)
{
    const char *mode = argv[2];
    armed = strstr(mode, "-all") != NULL ? 2 : 0;
    if (strncmp(mode, "orders:", 7) == 0) {
        tracer->orders = mode + 7;
        return;
    }
    tracer->kill = strncmp(mode, "record", 6) != 0;
    tracer->after = strncmp(mode, "after", 5) == 0;
    tracer->both = strchr(mode, '+') != NULL;
    tracer->point = argv[3];
    tracer->left = tracer->kill ? strtoul(argv[4], NULL, 10) : 0;
}

int main(int argc, char **argv)
{
    static struct tracer tracer;
    int program = 3, go[2];
    char word;
    while (program < argc && strcmp(argv[program], "--") != 0)
        program++;
    if (program + 1 >= argc || (program != 3 && program != 5)) {
        fprintf(stderr, "usage: kill_tracer LOG MODE [POINT OCCURRENCE] -- PROGRAM ARGUMENT...\n");
        return 2;
    }
    parse(&tracer, argv);
    tracer.root = getpid();
    if (pipe(go) < 0)
        return 2;
    /* A child of nobody: PROGRAM shall not find a child that it did not make. */
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0)
            trace(&tracer, argv[1], go);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(go[1]);
    if (read(go[0], &word, 1) != 1)
        return 2;
    close(go[0]);
    execv(argv[program + 1], argv + program + 1);
    perror(argv[program + 1]);
    return 127;
}
