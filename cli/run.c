/* VMs that are made: to stay, or for one command. */
#include "cli/internal.h"

enum { WAIT_S = 60 };

static int add_numbers(const struct cli_call *call, cJSON *spec, struct error *err)
{
    static const struct {
        const char *option, *member;
        uint64_t most;
    } numbers[] = {{"mem", "memory_mib", 1u << 24},
                   {"vcpus", "vcpus", 1024},
                   {"disk", "disk_mib", 1u << 24},
                   {"ttl", "ttl_s", 2592000}};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        uint64_t value = 0;
        if (cli_given_number(call, numbers[i].option, 0, numbers[i].most, &value, err) != 0)
            return -1;
        if (cli_given(call, numbers[i].option) != NULL &&
            json_add_number(spec, numbers[i].member, (double)value) != 0)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's spec");
    }
    return 0;
}

static cJSON *vm_spec(const struct cli_call *call, struct error *err)
{
    static const char *const texts[] = {"id", "image", "snapshot", "seccomp"};
    cleanup_json cJSON *spec = cJSON_CreateObject();
    bool kept = spec != NULL;
    for (size_t i = 0; i < COUNT_OF(texts) && kept; i++)
        if (cli_given(call, texts[i]) != NULL)
            kept = json_add_string(spec, texts[i], cli_given(call, texts[i])) == 0;
    if (!kept) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's spec");
        return NULL;
    }
    if (add_numbers(call, spec, err) != 0 ||
        cli_given_pairs(call, "label", spec, "labels", err) != 0)
        return NULL;
    return TAKE_PTR(spec);
}

/* A VM of ours, from the answer on that says there is one. */
struct vm {
    struct cli *cli;
    char *id, *path; /* owned; NULL: there is none */
    struct cli_progress progress;
};

static void vm_release(struct vm *vm)
{
    free(vm->id);
    free(vm->path);
}

static int admit(struct vm *vm, const cJSON *spec, struct cli_answer *ret, struct error *err)
{
    int interrupted = 0;
    const struct cli_making what = {.path = "/vms",
                                    .body = spec,
                                    .asynchronous = true,
                                    .progress = &vm->progress,
                                    .ret_signal = &interrupted};
    if (cli_make(vm->cli, &what, ret, err) != 0)
        return -1;
    const char *id = cli_text(ret->json, "id");
    vm->id = strdup(id);
    vm->path = cli_path("/vms/%s", id);
    if (vm->id == NULL || vm->path == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the VM %.64s", id);
    return interrupted != 0 ? error_set(err, ERR_CANCELLED, 0, "interrupted") : 0;
}

static int on_wait(void *context, int fd, struct error *err)
{
    struct vm *vm = context;
    cli_progress_show(&vm->progress);
    return fd == vm->cli->signals ? cli_signal_heed(vm->cli, err) : 0;
}

/* Until it runs, or is gone, which the service answers with its reason. */
static int wait_until_runs(struct vm *vm, struct cli_answer *answer, struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/wait?state=running&timeout_s=%d", vm->path, WAIT_S) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    while (strcmp(cli_text(answer->json, "state"), "creating") == 0) {
        cli_answer_release(answer);
        struct cli_request request = {
            .method = "GET", .path = path, .ready = on_wait, .context = vm};
        if (cli_http(vm->cli, &request, answer, err) != 0)
            return -1;
    }
    return 0;
}

/* One that may stay is told of, whatever `failed` before, which is told as well. */
static int unmake(const struct vm *vm, int failed, struct error *err)
{
    struct error left = {0};
    if (cli_unmake(vm->cli, vm->path, &left) == 0 || left.code == ERR_VM_GONE)
        return failed;
    error_wrap(&left, "the VM %s may be left behind", vm->id);
    if (failed == 0) {
        vm->cli->status = CLI_NOT_RUN;
        *err = left;
        return -1;
    }
    fputs("motte: ", stderr);
    cli_print_text(stderr, left.msg, strlen(left.msg), false);
    fputc('\n', stderr);
    return failed;
}

/* One that does not come to run is not left behind. */
static int make(struct vm *vm, const cJSON *spec, struct cli_answer *ret, struct error *err)
{
    cli_progress_begin(&vm->progress, vm->cli, "starting a VM", false);
    int failed = admit(vm, spec, ret, err);
    if (failed == 0)
        failed = wait_until_runs(vm, ret, err);
    cli_progress_end(&vm->progress);
    if (failed == 0 || vm->path == NULL)
        return failed;
    return unmake(vm, failed, err);
}

int cli_create(struct cli_call *call, struct error *err)
{
    cleanup_json cJSON *spec = vm_spec(call, err);
    if (spec == NULL)
        return -1;
    struct vm cleanup(vm_release) vm = {.cli = call->cli};
    struct cli_answer cleanup_answer answer = {0};
    if (make(&vm, spec, &answer, err) != 0)
        return -1;
    if (call->cli->json)
        return cli_print_json(answer.json, err);
    puts(vm.id);
    return 0;
}

static int run_in(const struct cli_call *call, const struct vm *vm, struct cli_exec_plan *plan,
                  struct error *err)
{
    plan->vm = vm->id;
    plan->there = true;
    int failed = cli_exec_run(call->cli, plan, err);
    if (cli_given(call, "keep") != NULL) {
        fprintf(stderr, "motte: the VM is kept: %s\n", vm->id);
        return failed;
    }
    return unmake(vm, failed, err);
}

int cli_run(struct cli_call *call, struct error *err)
{
    struct cli_exec_plan plan = {0};
    cleanup_json cJSON *spec = vm_spec(call, err);
    if (spec == NULL || cli_exec_plan_make(call, 0, &plan, err) != 0)
        return -1;
    struct vm cleanup(vm_release) vm = {.cli = call->cli};
    struct cli_answer cleanup_answer answer = {0};
    int failed = make(&vm, spec, &answer, err);
    if (failed == 0)
        failed = run_in(call, &vm, &plan, err);
    cJSON_Delete(plan.spec);
    return failed;
}
