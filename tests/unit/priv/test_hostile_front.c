/*
 * A captured front sends every valid message in every order: it gets no VMM without its guards, no
 * uid twice, no change outside Motte's names. Real server, Firecracker, jailer, firewall, cgroups.
 */
#include "hostile.h"

#include <criterion/criterion.h>

enum {
    LANES = 24,
    LOOKS = 25, /* sequences between two looks at the host */
};

static const enum priv_op operations[] = {PRIV_GUARD,  PRIV_LAUNCH, PRIV_OPEN, PRIV_CHECK,
                                          PRIV_REPORT, PRIV_USAGE,  PRIV_KILL};
static const enum priv_op snapshots[] = {PRIV_STAGE, PRIV_CAPTURE, PRIV_PUBLISH, PRIV_UNSTAGE,
                                         PRIV_KILL};

enum {
    KINDS = COUNT_OF(operations),
    STEPS = COUNT_OF(snapshots),
    ORDER = 6,
    ALL_OF_FOUR = KINDS * KINDS * KINDS * KINDS,
    LAUNCHED = KINDS * KINDS * KINDS,
    STAGED = STEPS * STEPS * STEPS,
    ORDERS = ALL_OF_FOUR + LAUNCHED + STAGED,
};

/* One instance and the operations it is still to see; many lanes run at once. */
struct lane {
    char instance[ID_INSTANCE_SIZE];
    enum priv_op order[ORDER];
    int at; /* 0 RESERVE, 1 … ORDER, then KILL */
    enum priv_op sent;
    enum priv_state state; /* as it must be, */
    enum priv_phase phase; /* as this */
};

/* All orders of four operations; then GUARD, LAUNCH and all orders of three more; and, once the VMM
 * is in its jail, of three of those that make a snapshot. What is left is KILL. */
static void make_order(int n, enum priv_op out[static ORDER])
{
    const bool any = n < ALL_OF_FOUR, staged = n >= ALL_OF_FOUR + LAUNCHED;
    const enum priv_op *from = staged ? snapshots : operations;
    const int base = staged ? STEPS : KINDS;
    int left = any ? n : n - ALL_OF_FOUR - (staged ? LAUNCHED : 0);
    int at = 0;
    if (!any) {
        out[at++] = PRIV_GUARD;
        out[at++] = PRIV_LAUNCH;
    }
    if (staged)
        out[at++] = PRIV_OPEN;
    for (int i = any ? 4 : 3; i > 0; i--, left /= base)
        out[at++] = from[left % base];
    while (at < ORDER)
        out[at++] = PRIV_KILL;
}

struct orders {
    struct bench *bench;
    struct watch *watch;
    struct lane lanes[LANES];
    int next;        /* order */
    size_t launched; /* VMMs */
};

static void send_next(struct orders *orders, size_t index)
{
    struct lane *lane = &orders->lanes[index];
    lane->sent = lane->at == 0       ? PRIV_RESERVE
                 : lane->at <= ORDER ? lane->order[lane->at - 1]
                                     : PRIV_KILL;
    struct priv_request request =
        hostile_request(orders->bench, lane->sent, lane->at == 0 ? NULL : lane->instance);
    request.id = index;
    pair_send(orders->bench->raw, &request, sizeof(request), NULL, 0);
}

/* The state machine of messages.h, said again: may this operation run now? */
static bool permitted(const struct lane *lane)
{
    switch ((int)lane->sent) {
    case PRIV_RESERVE:
    case PRIV_KILL:
        return true;
    case PRIV_GUARD:
        return lane->state == PRIV_RESERVED;
    case PRIV_LAUNCH:
        return lane->state == PRIV_GUARDED;
    case PRIV_USAGE:
        return lane->state == PRIV_GUARDED || lane->state == PRIV_LAUNCHED;
    case PRIV_STAGE:
        return lane->state == PRIV_LAUNCHED && lane->phase == PRIV_PHASE_NONE;
    case PRIV_CAPTURE:
        return lane->state == PRIV_LAUNCHED && lane->phase == PRIV_PHASE_STAGED;
    case PRIV_PUBLISH: /* no VMM here writes anything that could be captured */
        return false;
    default:
        return lane->state == PRIV_LAUNCHED;
    }
}

static void check_answer(const struct lane *lane, const struct hostile_answer *answer)
{
    bool done = answer->reply.code == ERR_NONE;
    size_t fds = 0;
    if (!permitted(lane)) {
        CHECK(answer->reply.code == ERR_PRIV_REFUSED && answer->reply.message[0] != '\0');
    } else if (lane->sent == PRIV_CHECK) {
        CHECK(answer->reply.code == ERR_GUARD); /* its main thread has no filter yet */
    } else if (lane->sent == PRIV_CAPTURE) {
        CHECK(answer->reply.code == ERR_HYPERVISOR); /* nothing was written */
    } else if (!done) {
        fprintf(stderr, "operation %d: %s\n", (int)lane->sent, answer->reply.message);
        CHECK(done);
    } else if (lane->sent == PRIV_REPORT) {
        const struct priv_line *line = &answer->reply.u.report;
        CHECK(strcmp(line->name, "seccomp") == 0 && line->state == PRIV_LINE_ABSENT);
    }
    fds += done && lane->sent == PRIV_LAUNCH ? 4 : 0;
    fds += done && lane->sent == PRIV_OPEN ? 1 : 0;
    CHECK(answer->fd_count == fds);
}

static void step_state(struct orders *orders, struct lane *lane,
                       const struct hostile_answer *answer)
{
    bool done = answer->reply.code == ERR_NONE;
    if (done && lane->sent == PRIV_RESERVE) {
        memcpy(lane->instance, answer->reply.u.reserve.instance, ID_INSTANCE_SIZE);
        lane->state = PRIV_RESERVED;
    } else if (done && lane->sent == PRIV_GUARD) {
        lane->state = PRIV_GUARDED;
    } else if (done && lane->sent == PRIV_LAUNCH) {
        lane->state = PRIV_LAUNCHED;
        orders->launched++;
    } else if (done && lane->sent == PRIV_STAGE) {
        lane->phase = PRIV_PHASE_STAGED;
    } else if (done && lane->sent == PRIV_KILL) {
        lane->state = PRIV_DEAD;
    } else if (lane->sent == PRIV_CAPTURE || (done && lane->sent == PRIV_UNSTAGE)) {
        lane->phase = PRIV_PHASE_NONE;
    }
}

/* True while the lane has something in flight. */
static bool start_order(struct orders *orders, size_t index)
{
    if (orders->next == ORDERS)
        return false;
    if (orders->next % LOOKS == 0)
        watch_guards(orders->watch);
    orders->lanes[index] = (struct lane){.at = 0};
    make_order(orders->next++, orders->lanes[index].order);
    send_next(orders, index);
    return true;
}

Test(priv_hostile_front, R41_every_order_of_valid_messages_does_only_what_it_may)
{
    static struct orders orders;
    struct bench bench;
    struct watch watch;
    size_t busy = 0;
    hostile_begin(&bench, &watch);
    orders.bench = &bench;
    orders.watch = &watch;
    for (size_t i = 0; i < LANES; i++)
        busy += start_order(&orders, i);
    while (busy > 0) {
        struct hostile_answer answer = hostile_receive(&bench);
        CHECK(answer.reply.id < LANES);
        struct lane *lane = &orders.lanes[answer.reply.id];
        CHECK(answer.reply.op == lane->sent);
        check_answer(lane, &answer);
        step_state(&orders, lane, &answer);
        if (lane->at++ <= ORDER)
            send_next(&orders, answer.reply.id);
        else
            busy -= !start_order(&orders, answer.reply.id);
    }
    hostile_end(&bench, &watch);
    cr_log_info("%zu launches, %zu looks at a VMM", orders.launched, watch.seen);
    cr_assert_gt(orders.launched, 300);
    cr_assert_gt(watch.seen, 20);
}
