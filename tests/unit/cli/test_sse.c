/* Server-sent events: the format, and that it does not matter in which pieces it comes. */
#include "cli/sse.h"
#include <criterion/criterion.h>

static int note(void *context, const struct cli_event *event, struct error *err)
{
    (void)err;
    struct buf *seen = context;
    cr_assert_eq(
        buf_printf(seen, "[%s|%s|%.*s]", event->name, event->id, (int)event->len, event->data), 0);
    return strcmp(event->name, "end") == 0 ? 1 : 0;
}

/* Its events, with a cut before each of these places. */
static int read_in_pieces(const char *text, size_t len, const size_t *cuts, size_t count,
                          struct buf *seen)
{
    struct error err = {0};
    struct cli_sse sse = {.handler = note, .context = seen};
    int done = 0;
    for (size_t i = 0, at = 0; i <= count && done == 0; i++) {
        size_t end = i < count ? cuts[i] : len;
        done = cli_sse_feed(&sse, text + at, end - at, &err);
        at = end;
    }
    cli_sse_release(&sse);
    return done;
}

static void expect(const char *text, const char *events)
{
    struct buf seen = {.max = 65536};
    read_in_pieces(text, strlen(text), NULL, 0, &seen);
    cr_assert_str_eq(seen.data != NULL ? seen.data : "", events);
    buf_release(&seen);
}

Test(sse, R27_fields_and_lines)
{
    expect("event: stdout\nid: 3\ndata: aGkK\n\n", "[stdout|3|aGkK]");
    expect("data:no blank\n\n", "[message||no blank]");
    expect("data:  two blanks\n\n", "[message|| two blanks]");
    expect("data: a\ndata: b\n\n", "[message||a\nb]");
    expect("data\n\n", "[message||]");
    expect("data: a:b: c\n\n", "[message||a:b: c]");
    expect("event: x\r\ndata: y\r\n\r\n", "[x||y]");
    expect("event: x\rdata: y\r\r", "[x||y]");
}

Test(sse, R27_what_is_no_event)
{
    expect(": silence\n\n:\n\n", "");
    expect("event: x\nid: 1\n\n", "");
    expect("event: x\n\ndata: y\n\n", "[message||y]"); /* its name was another's */
    expect("retry: 5\nunknown: z\ndata: y\n\n", "[message||y]");
    expect("event: x\ndata: cut off\n", "");
}

Test(sse, R27_the_handler_ends_it)
{
    struct buf seen = {.max = 65536};
    const char text[] = "event: end\ndata: {}\n\ndata: behind\n\n";
    cr_assert_eq(read_in_pieces(text, sizeof(text) - 1, NULL, 0, &seen), 1);
    cr_assert_str_eq(seen.data, "[end||{}]");
    buf_release(&seen);
}

Test(sse, R29_nothing_of_a_cut_event_outlives_its_connection)
{
    struct error err = {0};
    struct buf seen = {.max = 65536};
    struct cli_sse sse = {.handler = note, .context = &seen};
    const char begun[] = "event: a\nid: 7\ndata: half", whole[] = "data: b\n\n";
    cr_assert_eq(cli_sse_feed(&sse, begun, sizeof(begun) - 1, &err), 0);
    cli_sse_reset(&sse);
    cr_assert_eq(cli_sse_feed(&sse, whole, sizeof(whole) - 1, &err), 0);
    cr_assert_str_eq(seen.data, "[message||b]");
    cli_sse_release(&sse);
    buf_release(&seen);
}

Test(sse, R31_an_event_has_a_bound)
{
    struct error err = {0};
    struct buf seen = {.max = 65536};
    struct cli_sse sse = {.handler = note, .context = &seen};
    static char chunk[65536];
    memset(chunk, 'x', sizeof(chunk));
    int failed = 0;
    size_t sent = 0;
    for (; failed == 0 && sent < 2 * (size_t)CLI_SSE_MAX; sent += sizeof(chunk))
        failed = cli_sse_feed(&sse, chunk, sizeof(chunk), &err);
    cr_assert_eq(failed, -1);
    cr_assert_eq(err.code, ERR_JSON);
    cr_assert(sent <= (size_t)CLI_SSE_MAX + 2 * sizeof(chunk));
    cli_sse_release(&sse);
}

static int by_place(const void *left, const void *right)
{
    size_t a = *(const size_t *)left, b = *(const size_t *)right;
    return a < b ? -1 : a > b;
}

/* Bytes of the format's own alphabet, so that lines, ends and empty fields meet in every way. */
static void make_text(unsigned *seed, char *out, size_t len)
{
    static const char *const words[] = {"data", "event", "id",   "end", ":",     ": ", "\n",
                                        "\n\n", "\r",    "\r\n", "x",   "retry", " ",  "\xc3\xa9"};
    size_t at = 0;
    while (at < len) {
        const char *word = words[(size_t)rand_r(seed) % COUNT_OF(words)];
        size_t part = strlen(word) < len - at ? strlen(word) : len - at;
        memcpy(out + at, word, part);
        at += part;
    }
}

Test(sse, R27_any_split_gives_the_same_events)
{
    enum { ROUNDS = 4000, LENGTH = 200, CUTS = 12 };
    size_t events = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned seed = round;
        char text[LENGTH];
        size_t cuts[CUTS];
        struct buf whole = {.max = 65536}, pieces = {.max = 65536};
        make_text(&seed, text, sizeof(text));
        for (size_t i = 0; i < CUTS; i++)
            cuts[i] = (size_t)rand_r(&seed) % (LENGTH + 1);
        qsort(cuts, CUTS, sizeof(*cuts), by_place);
        int one = read_in_pieces(text, LENGTH, NULL, 0, &whole);
        int many = read_in_pieces(text, LENGTH, cuts, CUTS, &pieces);
        cr_assert_eq(one, many, "seed %u", round);
        cr_assert_eq(whole.len, pieces.len, "seed %u", round);
        cr_assert(whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0, "seed %u",
                  round);
        events += whole.len > 0;
        buf_release(&whole);
        buf_release(&pieces);
    }
    cr_assert(events > ROUNDS / 4, "only %zu texts had events", events);
}
