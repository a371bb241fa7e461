/* What the doctor found, as a table or as JSON. */
#include "admin/internal.h"

#include <stdarg.h>

static const char *const levels[] = {"ok", "note", "warning", "lacking"};

void admin_report_add(struct admin_report *report, const char *name, enum admin_level level,
                      enum admin_scope scope, const char *remedy, const char *fmt, ...)
{
    if (report->count == ADMIN_CHECKS_MAX)
        return;
    struct admin_check *check = &report->checks[report->count++];
    *check = (struct admin_check){
        .name = name, .level = level, .scope = scope, .remedy = remedy != NULL ? remedy : ""};
    va_list args;
    va_start(args, fmt);
    vsnprintf(check->found, sizeof(check->found), fmt, args);
    va_end(args);
}

bool admin_report_works(const struct admin_report *report, enum admin_scope scope)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct admin_check *check = &report->checks[i];
        if (check->level == ADMIN_LACKS && ((unsigned)check->scope & (unsigned)scope) != 0)
            return false;
    }
    return true;
}

static int add_check(cJSON *list, const struct admin_check *check)
{
    cJSON *one = cJSON_CreateObject();
    if (one == NULL || !cJSON_AddItemToArray(list, one)) {
        cJSON_Delete(one);
        return -1;
    }
    return json_add_string(one, "name", check->name) |
           json_add_string(one, "status", levels[check->level]) |
           json_add_bytes(one, "found", check->found, strlen(check->found)) |
           json_add_string(one, "remedy", check->level == ADMIN_OK ? "" : check->remedy);
}

static int print_json(const struct admin_report *report, struct error *err)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *list = json == NULL ? NULL : cJSON_AddArrayToObject(json, "checks");
    int failed = list == NULL ? -1 : 0;
    for (size_t i = 0; i < report->count && failed == 0; i++)
        failed = add_check(list, &report->checks[i]);
    if (failed == 0)
        failed = json_add_bool(json, "firecracker", admin_report_works(report, ADMIN_FIRECRACKER)) |
                 json_add_bool(json, "emulation", admin_report_works(report, ADMIN_EMULATION));
    cleanup_free char *text = failed == 0 ? json_print(json) : NULL;
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    puts(text);
    return 0;
}

static const char *verdict(const struct admin_report *report)
{
    if (admin_report_works(report, ADMIN_FIRECRACKER))
        return "This host can run Firecracker microVMs.";
    if (admin_report_works(report, ADMIN_EMULATION))
        return "This host can run VMs under QEMU's emulation only (`motted --dev`): to try Motte, "
               "not to keep strangers apart.";
    return "This host cannot run a VM yet: see what is lacking above.";
}

int admin_report_print(const struct admin_report *report, bool json, struct error *err)
{
    if (json)
        return print_json(report, err);
    for (size_t i = 0; i < report->count; i++) {
        const struct admin_check *check = &report->checks[i];
        printf("%-8s %-22s %s\n", levels[check->level], check->name, check->found);
        if (check->level != ADMIN_OK && check->remedy[0] != '\0')
            printf("%-8s %-22s -> %s\n", "", "", check->remedy);
    }
    printf("\n%s\n", verdict(report));
    return 0;
}
