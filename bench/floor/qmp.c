/* QEMU's monitor, spoken as Motte speaks it, but on one connection. */
#include "bench/floor/floor.h"

#include <sys/socket.h>

enum { LINE = 4096 };

static void take_line(struct bench_http *api, char line[static LINE])
{
    char *end;
    while ((end = memchr(api->text, '\n', api->len)) == NULL) {
        ssize_t n = recv(api->fd, api->text + api->len, sizeof(api->text) - api->len, 0);
        bench_must(n > 0, "QEMU's monitor");
        api->len += (size_t)n;
    }
    size_t len = (size_t)(end - api->text);
    bench_must(len < LINE, "a line of QEMU's monitor that long");
    memcpy(line, api->text, len);
    line[len] = '\0';
    api->len -= len + 1;
    memmove(api->text, end + 1, api->len);
}

/* Until a line has come that has `one` in it, and one that has `other`, if that is asked for. */
static void await(struct bench_http *api, const char *one, const char *other)
{
    char line[LINE];
    for (bool first = false, second = other == NULL; !first || !second;) {
        take_line(api, line);
        bench_must(strncmp(line, "{\"error\"", strlen("{\"error\"")) != 0 &&
                       strstr(line, "\"status\": \"failed\"") == NULL,
                   line);
        first = first || strstr(line, one) != NULL;
        second = second || strstr(line, other) != NULL;
    }
}

static void tell(const struct bench_http *api, const char *command)
{
    ssize_t len = (ssize_t)strlen(command);
    bench_must(send(api->fd, command, (size_t)len, MSG_NOSIGNAL) == len, "QEMU's monitor");
}

static const char answer[] = "{\"return\"";
static const char begin[] = "{\"execute\":\"qmp_capabilities\"}\n";

static int connect_to(struct floor_vm *vm, const char *name)
{
    char path[64];
    floor_wait_for_node(vm, name);
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", vm->root, name);
    return bench_connect(path);
}

void floor_qemu_load(struct floor_vm *vm)
{
    vm->api.fd = connect_to(vm, "vm/api.sock");
    vm->api.len = 0;
    vm->events = connect_to(vm, "vm/events.sock");
    bench_must(send(vm->events, begin, strlen(begin), MSG_NOSIGNAL) > 0, "QEMU's events");
    await(&vm->api, "\"QMP\"", NULL);
    tell(&vm->api, begin);
    await(&vm->api, answer, NULL);
    tell(&vm->api, "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":["
                   "{\"capability\":\"events\",\"state\":true},"
                   "{\"capability\":\"x-ignore-shared\",\"state\":false}]}}\n");
    await(&vm->api, answer, NULL);
    tell(&vm->api, "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:3\"}}\n");
    await(&vm->api, answer, "\"status\": \"completed\"");
}

void floor_qemu_resume(struct floor_vm *vm)
{
    tell(&vm->api, "{\"execute\":\"cont\"}\n");
    await(&vm->api, answer, NULL);
}
