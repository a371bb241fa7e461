/* kill -9 in the middle of writing: what was answered is there, what is there hangs together. */
#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

/* One line of the child's account: this change was answered. */
struct answered {
    char instance[ID_INSTANCE_SIZE];
    char id[ID_VM_MAX + 1];
    enum store_state state; /* STORE_EXITED: ended */
};

static void account(int fd, const struct store_vm *vm, enum store_state state)
{
    struct answered answered = {.state = state};
    memcpy(answered.instance, vm->instance, sizeof(answered.instance));
    memcpy(answered.id, vm->id, sizeof(answered.id));
    if (write(fd, &answered, sizeof(answered)) != (ssize_t)sizeof(answered))
        _exit(3);
}

/* Never returns. */
static void child(const char *dir, int fd, int round, struct random *random)
{
    struct store *store = NULL;
    struct error err = {0};
    if (store_open(dir, &store, &err) < 0)
        _exit(2);
    for (int i = 0;; i++) {
        char id[32];
        struct store_vm back;
        snprintf(id, sizeof(id), "vm-%d-%d", round, i);
        struct store_vm vm = fixture_add(store, "a", id);
        account(fd, &vm, STORE_CREATING);
        if (store_vm_running(store, &vm, &err) < 0)
            _exit(4);
        account(fd, &vm, STORE_RUNNING);
        if (random_below(random, 2) == 0)
            continue;
        if (store_vm_deleting(store, "a", id, &back, &err) < 0)
            _exit(5);
        account(fd, &vm, STORE_DELETING);
        fixture_end(store, vm.instance);
        account(fd, &vm, STORE_EXITED);
    }
}

static void assert_consistent(const char *dir)
{
    static const char *const checks[] = {
        "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
        "SELECT count(*) FROM vms JOIN certificates USING (instance)",
        "SELECT count(*) FROM (SELECT seq FROM vms UNION ALL SELECT seq FROM certificates)"
        " GROUP BY seq HAVING count(*) > 1 UNION ALL SELECT 0",
    };
    char path[64];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    for (size_t i = 0; i < COUNT_OF(checks); i++) {
        sqlite3_stmt *statement = NULL;
        cr_assert_eq(sqlite3_prepare_v2(db, checks[i], -1, &statement, NULL), SQLITE_OK, "%s",
                     sqlite3_errmsg(db));
        cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
        cr_assert_eq(sqlite3_column_int(statement, 0), 0, "%s", checks[i]);
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
}

/* The row is at least as far as was answered: the next change may have been made, unanswered. */
static void assert_kept(struct store *store, const struct answered *answered)
{
    struct store_vm vm;
    struct error err = {0};
    int result = store_vm_by_instance(store, answered->instance, &vm, &err);
    if (answered->state == STORE_EXITED)
        cr_assert_eq(err.code, ERR_VM_GONE, "%s came back", answered->id);
    else if (result < 0)
        cr_assert(err.code == ERR_VM_GONE && answered->state == STORE_DELETING, "%s is lost: %s",
                  answered->id, err.msg);
    else
        cr_assert(vm.state >= answered->state, "%s went back to %s", answered->id,
                  store_state_name(vm.state));
}

/* Reads accounts until `kill_after` came, kills, reads the rest; keeps the last per VM. */
static size_t run_and_kill(const char *dir, int round, size_t kill_after, struct answered *last,
                           size_t room, struct random *random)
{
    int fds[2];
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0)
        child(dir, fds[1], round, random);
    close(fds[1]);
    size_t count = 0, total = 0;
    struct answered answered;
    while (read(fds[0], &answered, sizeof(answered)) == (ssize_t)sizeof(answered)) {
        if (++total == kill_after) {
            /* Somewhere inside the next changes, not always right after an answer. */
            int64_t until = clock_mono_us() + (int64_t)random_below(random, 700);
            while (clock_mono_us() < until)
                ;
            cr_assert_eq(kill(pid, SIGKILL), 0);
        }
        if (count > 0 && strcmp(last[count - 1].instance, answered.instance) == 0)
            last[count - 1] = answered;
        else if (count < room)
            last[count++] = answered;
    }
    close(fds[0]);
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child ended by itself: %x",
              (unsigned)status);
    return count;
}

Test(store_crash, R02_kill_9_while_writing_keeps_every_answered_change, .timeout = 120)
{
    enum { ROUNDS = 60, ROOM = 4000 };
    struct random random = random_start();
    struct error err = {0};
    struct fixture f = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    struct answered *last = calloc(ROOM, sizeof(*last));
    for (int round = 0; round < ROUNDS; round++) {
        store_close(f.store); /* a fork must not carry connections across */
        f.store = NULL;
        size_t count =
            run_and_kill(f.dir, round, 1 + random_below(&random, 200), last, ROOM, &random);
        cr_assert_lt(count, ROOM);
        cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s (seed %llu)", err.msg,
                     (unsigned long long)random.seed);
        for (size_t i = 0; i < count; i++)
            assert_kept(f.store, &last[i]);
        assert_consistent(f.dir);
        fixture_end(f.store, fixture_add(f.store, "a", "still-works").instance);
    }
    free(last);
    fixture_release(&f);
}
