/* The channel under threads: a plain program, so that ThreadSanitizer can run it. */
#include "support.h"
#include "tests/unit/base/check.h"
#include "vsock/vsock.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

enum { THREADS = 64, CALLS = 40 };

static int64_t soon(int64_t ms)
{
    return clock_mono_ms() + ms;
}

/* A channel with the thread that reads for it. */
struct setup {
    struct vsock_channel *channel;
    int guest;
    atomic_bool stop;
    atomic_int notes;
    struct error over;
    pthread_t monitor;
};

static void *monitor(void *context)
{
    struct setup *setup = context;
    while (!atomic_load(&setup->stop)) {
        struct pollfd fds = {.fd = vsock_channel_fd(setup->channel), .events = POLLIN};
        if (poll(&fds, 1, 10) > 0 && vsock_channel_readable(setup->channel, &setup->over))
            break;
    }
    return NULL;
}

static void count_note(void *context, const cJSON *message)
{
    struct setup *setup = context;
    CHECK(cJSON_GetObjectItemCaseSensitive(message, "op") != NULL);
    atomic_fetch_add(&setup->notes, 1);
}

static void setup_open(struct setup *setup, int buffer)
{
    struct support_pair pair = support_pair_new(buffer);
    struct error err = {0};
    *setup = (struct setup){.guest = pair.guest};
    setup->channel = vsock_channel_new(pair.host, count_note, setup, &err);
    CHECK(setup->channel);
    pthread_create(&setup->monitor, NULL, monitor, setup);
}

static void setup_close(struct setup *setup)
{
    atomic_store(&setup->stop, true);
    pthread_join(setup->monitor, NULL);
    vsock_channel_free(setup->channel);
    close(setup->guest);
}

static int call(struct setup *setup, int64_t ms, int value, int *ret_value, struct error *err)
{
    cleanup_json cJSON *request = cJSON_CreateObject();
    cleanup_json cJSON *reply = NULL;
    CHECK(json_add_string(request, "op", "echo") == 0);
    CHECK(json_add_number(request, "value", value) == 0);
    if (vsock_channel_call(setup->channel, request, soon(ms), &reply, err))
        return -1;
    *ret_value = (int)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(reply, "value"));
    return 0;
}

/* ---- R30: many threads, replies out of order ---- */

struct caller {
    struct setup *setup;
    int number;
};

static void *call_many(void *context)
{
    const struct caller *caller = context;
    for (int i = 0; i < CALLS; i++) {
        int value = caller->number * CALLS + i, answer = -1;
        struct error err = {0};
        int result = call(caller->setup, 30000, value, &answer, &err);
        if (result)
            fprintf(stderr, "%s\n", err.msg);
        CHECK(result == 0);
        CHECK(answer == value);
    }
    return NULL;
}

static void answer(int fd, double id, double value, const char *more)
{
    char text[128];
    struct buf bytes = {.max = 1000};
    snprintf(text, sizeof text, "{\"id\":%.0f,\"ok\":true,\"value\":%.0f%s}", id, value, more);
    support_text_frame(&bytes, WIRE_CONTROL, text);
    CHECK(fs_write_all(fd, bytes.data, bytes.len) == 0);
    buf_release(&bytes);
}

static void read_call(int fd, double *ret_id, double *ret_value)
{
    struct buf request = {.max = 70000};
    struct error err = {0};
    cleanup_json cJSON *json = NULL;
    CHECK(support_read_frame(fd, &request) == WIRE_CONTROL);
    CHECK(json_parse(request.data, request.len, &json, &err) == 0);
    *ret_id = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "id"));
    *ret_value = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "value"));
    buf_release(&request);
}

/* Holds requests back and answers them in random order, with notifications between. */
static void serve_shuffled(int fd, int total, uint64_t seed)
{
    double ids[THREADS], values[THREADS], last = 0;
    int held = 0;
    for (int done = 0; done < total;) {
        struct pollfd fds = {.fd = fd, .events = POLLIN};
        if (held < THREADS && poll(&fds, 1, held ? 1 : 10000) > 0) {
            read_call(fd, &ids[held], &values[held]);
            CHECK(ids[held] > last); /* ids grow on the wire */
            last = ids[held++];
            continue;
        }
        int pick = (int)support_random(&seed, (uint32_t)held);
        if (support_random(&seed, 4) == 0) {
            struct buf note = {.max = 100};
            support_text_frame(&note, WIRE_CONTROL, "{\"op\":\"bye\",\"id\":1}");
            CHECK(fs_write_all(fd, note.data, note.len) == 0);
            buf_release(&note);
        }
        answer(fd, ids[pick], values[pick], "");
        ids[pick] = ids[--held];
        values[pick] = values[held];
        done++;
    }
}

static void R30_64_threads_never_cross(void)
{
    struct setup setup;
    struct caller callers[THREADS];
    pthread_t threads[THREADS];
    setup_open(&setup, 4096);
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){&setup, i};
        pthread_create(&threads[i], NULL, call_many, &callers[i]);
    }
    serve_shuffled(setup.guest, THREADS * CALLS, support_seed());
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&setup.notes) > 0);
    setup_close(&setup);
}

/* ---- one caller at a time ---- */

struct one {
    struct setup *setup;
    int64_t ms;
    int value, result;
    struct error err;
    pthread_t thread;
};

static void *call_one(void *context)
{
    struct one *one = context;
    one->result = call(one->setup, one->ms, 7, &one->value, &one->err);
    return NULL;
}

static void one_start(struct one *one, struct setup *setup, int64_t ms)
{
    *one = (struct one){.setup = setup, .ms = ms};
    pthread_create(&one->thread, NULL, call_one, one);
}

static void R30_an_unknown_reply_id_ends_the_channel(void)
{
    struct setup setup;
    struct one one;
    double id, value;
    int unused;
    setup_open(&setup, 0);
    one_start(&one, &setup, 30000);
    read_call(setup.guest, &id, &value);
    answer(setup.guest, id + 1, value, "");
    pthread_join(one.thread, NULL);
    CHECK(one.result == -1 && one.err.code == ERR_GUEST_PROTOCOL);
    struct error err = {0};
    CHECK(call(&setup, 30000, 1, &unused, &err) == -1); /* at once, not at the deadline */
    CHECK(err.code == ERR_GUEST_PROTOCOL);
    setup_close(&setup);
}

static void R30_a_second_reply_to_one_request_ends_the_channel(void)
{
    struct setup setup;
    struct one one;
    double id, value;
    setup_open(&setup, 0);
    one_start(&one, &setup, 30000);
    read_call(setup.guest, &id, &value);
    answer(setup.guest, id, value, "");
    pthread_join(one.thread, NULL);
    CHECK(one.result == 0 && one.value == 7);
    answer(setup.guest, id, value, "");
    pthread_join(setup.monitor, NULL); /* it ends by itself */
    CHECK(setup.over.code == ERR_GUEST_PROTOCOL);
    pthread_create(&setup.monitor, NULL, monitor, &setup);
    setup_close(&setup);
}

static void R30_a_late_reply_is_dropped(void)
{
    struct setup setup;
    struct one one;
    double id, value, late;
    setup_open(&setup, 0);
    one_start(&one, &setup, 50);
    read_call(setup.guest, &late, &value);
    pthread_join(one.thread, NULL);
    CHECK(one.result == -1 && one.err.code == ERR_GUEST_TIMEOUT);
    answer(setup.guest, late, value, "");
    one_start(&one, &setup, 30000);
    read_call(setup.guest, &id, &value);
    answer(setup.guest, id, value, "");
    pthread_join(one.thread, NULL);
    CHECK(one.result == 0 && one.value == 7);
    setup_close(&setup);
}

static void R30_more_than_64_calls_are_busy(void)
{
    struct setup setup;
    struct one waiting[THREADS];
    double id, value;
    int unused;
    struct error err = {0};
    setup_open(&setup, 0);
    for (int i = 0; i < THREADS; i++)
        one_start(&waiting[i], &setup, 30000);
    for (int i = 0; i < THREADS; i++)
        read_call(setup.guest, &id, &value);
    CHECK(call(&setup, 30000, 1, &unused, &err) == -1);
    CHECK(err.code == ERR_BUSY);
    close(setup.guest); /* the guest goes: all fail now */
    setup.guest = -1;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(waiting[i].thread, NULL);
        CHECK(waiting[i].result == -1 && waiting[i].err.code == ERR_GUEST_CLOSED);
    }
    setup_close(&setup);
}

/* A guest that never reads cannot stop us reading, and writers end at their deadlines. */
static void R29_a_guest_that_does_not_read_is_still_heard(void)
{
    struct setup setup;
    struct one waiting[THREADS];
    setup_open(&setup, 2048);
    for (int i = 0; i < THREADS; i++)
        one_start(&waiting[i], &setup, 1500);
    struct buf note = {.max = 100};
    support_text_frame(&note, WIRE_CONTROL, "{\"op\":\"bye\"}");
    for (int i = 0; i < 1000; i++)
        CHECK(fs_write_all(setup.guest, note.data, note.len) == 0);
    int64_t deadline = soon(1000);
    while (atomic_load(&setup.notes) < 1000 && clock_mono_ms() < deadline)
        poll(NULL, 0, 1);
    CHECK(atomic_load(&setup.notes) == 1000);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(waiting[i].thread, NULL);
        CHECK(waiting[i].result == -1 && waiting[i].err.code == ERR_GUEST_TIMEOUT);
    }
    buf_release(&note);
    setup_close(&setup);
}

static void *free_channel(void *context)
{
    struct setup *setup = context;
    vsock_channel_free(setup->channel);
    return NULL;
}

static void R30_free_fails_the_calls_that_wait(void)
{
    struct setup setup;
    struct one one;
    double id, value;
    pthread_t thread;
    setup_open(&setup, 0);
    one_start(&one, &setup, 60000);
    read_call(setup.guest, &id, &value);
    atomic_store(&setup.stop, true);
    pthread_join(setup.monitor, NULL);
    int64_t start = clock_mono_ms();
    pthread_create(&thread, NULL, free_channel, &setup);
    pthread_join(one.thread, NULL);
    pthread_join(thread, NULL);
    CHECK(one.result == -1 && one.err.code == ERR_GUEST_CLOSED);
    CHECK(clock_mono_ms() - start < 5000);
    close(setup.guest);
}

static void R31_a_refusal_reaches_its_caller_only(void)
{
    struct setup setup;
    struct one one;
    double id, value;
    setup_open(&setup, 0);
    one_start(&one, &setup, 30000);
    read_call(setup.guest, &id, &value);
    char text[128];
    struct buf bytes = {.max = 1000};
    snprintf(text, sizeof text,
             "{\"id\":%.0f,\"ok\":false,\"error\":{\"code\":\"no\",\"message\":\"never\"}}", id);
    support_text_frame(&bytes, WIRE_CONTROL, text);
    CHECK(fs_write_all(setup.guest, bytes.data, bytes.len) == 0);
    pthread_join(one.thread, NULL);
    CHECK(one.result == -1 && one.err.code == ERR_GUEST_REFUSED);
    one_start(&one, &setup, 30000);
    read_call(setup.guest, &id, &value);
    answer(setup.guest, id, value, "");
    pthread_join(one.thread, NULL);
    CHECK(one.result == 0);
    buf_release(&bytes);
    setup_close(&setup);
}

int main(void)
{
#define RUN(test) (printf(#test "\n"), fflush(stdout), test())
    RUN(R30_64_threads_never_cross);
    RUN(R30_an_unknown_reply_id_ends_the_channel);
    RUN(R30_a_second_reply_to_one_request_ends_the_channel);
    RUN(R30_a_late_reply_is_dropped);
    RUN(R30_more_than_64_calls_are_busy);
    RUN(R29_a_guest_that_does_not_read_is_still_heard);
    RUN(R30_free_fails_the_calls_that_wait);
    RUN(R31_a_refusal_reaches_its_caller_only);
    return 0;
}
