/* See report.h. */
#include "report.h"

void report_read(struct bench *bench, const struct bench_vm *vm, struct report *ret)
{
    struct error err = {0};
    for (ret->count = 0;; ret->count++) {
        struct priv_line line;
        if (priv_report(bench->client, vm->instance, (uint32_t)ret->count, &line, &err) < 0) {
            fprintf(stderr, "report: %s\n", err.msg);
            exit(1);
        }
        if (line.name[0] == '\0')
            return;
        CHECK(ret->count < COUNT_OF(ret->lines) && report_line(ret, line.name) == NULL);
        CHECK((line.state == PRIV_LINE_OK) == (line.detail[0] == '\0'));
        ret->lines[ret->count] = line;
    }
}

const struct priv_line *report_line(const struct report *report, const char *name)
{
    for (size_t i = 0; i < report->count; i++)
        if (strcmp(report->lines[i].name, name) == 0)
            return &report->lines[i];
    return NULL;
}

const char *report_wrong(struct bench *bench, const struct bench_vm *vm, char *out, size_t size)
{
    struct report report;
    size_t len = 0;
    report_read(bench, vm, &report);
    out[0] = '\0';
    for (size_t i = 0; i < report.count; i++) {
        const struct priv_line *line = &report.lines[i];
        if (line->state != PRIV_LINE_WRONG && line->state != PRIV_LINE_ABSENT)
            continue;
        len += (size_t)snprintf(out + len, size - len, " %s", line->name);
        fprintf(stderr, "%s: %s\n", line->name, line->detail);
        CHECK(len < size);
    }
    return out;
}
