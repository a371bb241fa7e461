/* What stands in the way of VMs, seen from here: the way to the service, who one is there, and what
 * it holds VMs in. */
#include "cli/internal.h"
#include <stdarg.h>

static const char host_remedy[] = "Run `motted doctor` on the host: it says what is missing there.";

struct doctor {
    struct cli *cli;
    cJSON *lines; /* [{name, state: ok|warn|fail, detail, remedy}] */
    bool failed;
    bool lost; /* no memory */
};

static void note(struct doctor *doctor, const char *name, const char *state, const char *remedy,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void note(struct doctor *doctor, const char *name, const char *state, const char *remedy,
                 const char *fmt, ...)
{
    cleanup_free char *detail = NULL;
    va_list words;
    va_start(words, fmt);
    bool kept = vasprintf(&detail, fmt, words) >= 0;
    va_end(words);
    cJSON *line = cJSON_CreateObject();
    kept = kept && line != NULL && json_add_string(line, "name", name) == 0 &&
           json_add_string(line, "state", state) == 0 &&
           json_add_string(line, "detail", detail) == 0 &&
           json_add_string(line, "remedy", strcmp(state, "ok") != 0 ? remedy : "") == 0;
    if (!kept || !cJSON_AddItemToArray(doctor->lines, line)) {
        cJSON_Delete(line);
        doctor->lost = true;
    }
    doctor->failed = doctor->failed || strcmp(state, "fail") == 0;
}

static void note_error(struct doctor *doctor, const char *name, const struct error *err,
                       const char *remedy)
{
    const char *told =
        cJSON_GetStringValue(cJSON_GetObjectItem(doctor->cli->problem, "remediation"));
    note(doctor, name, "fail", told != NULL ? told : remedy, "%s", err->msg);
}

static bool true_of(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* Names of a list, with commas. */
static void join(const cJSON *list, struct buf *out)
{
    const cJSON *name;
    cJSON_ArrayForEach(name, list)
    {
        const char *text = cJSON_GetStringValue(name);
        buf_printf(out, "%s%s", out->len > 0 ? ", " : "", text != NULL ? text : "?");
    }
}

static void judge_isolation(struct doctor *doctor, const cJSON *can)
{
    if (true_of(can, "emulated"))
        note(doctor, "isolation", "warn",
             "Run nothing untrusted there: emulation is no security border. A host with KVM and "
             "Firecracker is.",
             "emulated by %s %s", cli_text(can, "hypervisor"), cli_text(can, "vmm_version"));
    else
        note(doctor, "isolation", "ok", NULL, "%s, by %s %s", cli_text(can, "isolation"),
             cli_text(can, "hypervisor"), cli_text(can, "vmm_version"));
}

static void judge_guards(struct doctor *doctor, const cJSON *can)
{
    struct buf guards = {.max = 4096}, without = {.max = 4096};
    join(cJSON_GetObjectItemCaseSensitive(can, "guards"), &guards);
    join(cJSON_GetObjectItemCaseSensitive(can, "without"), &without);
    if (without.len > 0)
        note(doctor, "guards", "warn", host_remedy, "the operator left out %s", without.data);
    else
        note(doctor, "guards", "ok", NULL, "%s", guards.len > 0 ? guards.data : "none needed");
    free(guards.data);
    free(without.data);
}

/* A token, or the socket's own right: who one is with it. */
static void judge_caller(struct doctor *doctor, const cJSON *can)
{
    const cJSON *tenant = cJSON_GetObjectItemCaseSensitive(can, "tenant");
    struct cli_answer cleanup_answer answer = {0};
    struct error err = {0};
    bool admin = cli_get(doctor->cli, "/admin/cordon", &answer, &err) == 0;
    if (!admin && err.code != ERR_FORBIDDEN)
        note_error(doctor, "caller", &err, host_remedy);
    else
        note(doctor, "caller", "ok", NULL, "%s of tenant %s, which has %.0f VMs",
             admin ? "administrator" : "no administrator", cli_text(tenant, "name"),
             cli_real(tenant, "vms"));
}

static void judge_readiness(struct doctor *doctor)
{
    struct cli_answer cleanup_answer answer = {0};
    struct error err = {0};
    if (cli_get(doctor->cli, "/readyz", &answer, &err) == 0)
        note(doctor, "readiness", "ok", NULL, "a new VM would be tried");
    else
        note_error(doctor, "readiness", &err, host_remedy);
}

static void examine(struct doctor *doctor)
{
    struct cli_answer cleanup_answer health = {0}, can = {0};
    struct error err = {0};
    if (cli_get(doctor->cli, "/healthz", &health, &err) != 0) {
        note_error(doctor, "service", &err,
                   "Say where the service is with --address or MOTTE_ADDRESS. If it is there: "
                   "`motted doctor` on its host says why it does not answer.");
        return;
    }
    note(doctor, "service", "ok", NULL, "answers at %s", doctor->cli->address);
    if (cli_get(doctor->cli, "/capabilities", &can, &err) != 0) {
        note_error(doctor, "caller", &err,
                   "Put a token that `motted token create` printed into MOTTE_TOKEN.");
        return;
    }
    bool same = strcmp(cli_text(can.json, "version"), MOTTE_VERSION) == 0;
    note(doctor, "version", same ? "ok" : "warn", "Take a client of the service's version.",
         "the service's is %s, this client's %s", cli_text(can.json, "version"), MOTTE_VERSION);
    judge_caller(doctor, can.json);
    judge_isolation(doctor, can.json);
    judge_guards(doctor, can.json);
    judge_readiness(doctor);
}

static int print_lines(const struct cli *cli, const cJSON *lines, struct error *err)
{
    static const char *const heads[] = {"STATE", "WHAT", "DETAIL"};
    struct cli_table cleanup_table table = {0};
    cli_table_heads(&table, heads, COUNT_OF(heads));
    const cJSON *line;
    cJSON_ArrayForEach(line, lines)
    {
        const char *state = cli_text(line, "state"), *remedy = cli_text(line, "remedy");
        enum cli_colour bad = strcmp(state, "warn") == 0 ? CLI_YELLOW : CLI_RED;
        bool well = strcmp(state, "ok") == 0;
        cli_table_cell(&table, well ? CLI_GREEN : bad, "%s", state);
        cli_table_cell(&table, CLI_PLAIN, "%s", cli_text(line, "name"));
        cli_table_cell(&table, CLI_PLAIN, "%s", cli_text(line, "detail"));
        if (!well) { /* a line of its own */
            cli_table_cell(&table, CLI_PLAIN, "%s", "");
            cli_table_cell(&table, CLI_PLAIN, "%s", "");
            cli_table_cell(&table, CLI_PLAIN, "%s", remedy);
        }
    }
    return cli_table_finish(cli, &table, err);
}

int cli_doctor(struct cli_call *call, struct error *err)
{
    cleanup_json cJSON *report = cJSON_CreateObject();
    struct doctor doctor = {.cli = call->cli, .lines = cJSON_AddArrayToObject(report, "lines")};
    if (doctor.lines == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a report");
    examine(&doctor);
    if (doctor.lost || json_add_bool(report, "ok", !doctor.failed) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a report");
    if (doctor.failed)
        call->cli->status = call->cli->unreached ? CLI_UNREACHED : CLI_FAILED;
    return call->cli->json ? cli_print_json(report, err)
                           : print_lines(call->cli, doctor.lines, err);
}
