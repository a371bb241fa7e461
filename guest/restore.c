/* What a snapshot has made equal is made different again, in the order of their weight: randomness
 * first, since the rest may draw on it. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { HOSTNAME_MAX = 63, UUID_LINE = 37 };

static const int64_t NS_PER_MS = 1000000, NS_PER_S = 1000000000;

/* The year 2248: in nanoseconds it still fits. */
static const int64_t TIME_MAX_MS = INT64_C(1) << 43;

/* ---- the request ---- */

__attribute__((format(printf, 2, 3))) static int bad(struct guest_refusal *why, const char *fmt,
                                                     ...)
{
    va_list args;
    va_start(args, fmt);
    why->code = "bad_request";
    vsnprintf(why->message, sizeof why->message, fmt, args);
    va_end(args);
    return -1;
}

static int known_fields_only(json_t *request, struct guest_refusal *why)
{
    static const char *const FIELDS[] = {"id",         "op",        "instance", "generation",
                                         "wall_ms",    "uptime_ms", "entropy",  "hostname",
                                         "machine_id", "token"};
    const char *name;
    json_t *value;
    json_object_foreach(request, name, value)
    {
        size_t i = 0;
        while (i < sizeof FIELDS / sizeof FIELDS[0] && strcmp(FIELDS[i], name) != 0)
            i++;
        if (i == sizeof FIELDS / sizeof FIELDS[0])
            return bad(why, "restore has no field \"%.64s\"", name);
    }
    return 0;
}

/* The string's length, 0 if there is none. */
static size_t text(json_t *request, const char *name, const char **ret)
{
    json_t *value = json_object_get(request, name);
    *ret = json_string_value(value);
    return json_string_length(value);
}

static int time_in(json_t *request, const char *name, int64_t *ret)
{
    json_t *value = json_object_get(request, name);
    *ret = json_integer_value(value);
    return json_is_integer(value) && *ret >= 0 && *ret <= TIME_MAX_MS ? 0 : -1;
}

static int parse_identity(json_t *request, const struct guest_facts *facts,
                          struct guest_identity *ret, struct guest_refusal *why)
{
    const char *instance, *token;
    size_t instance_len = text(request, "instance", &instance);
    size_t token_len = text(request, "token", &token);
    json_t *generation = json_object_get(request, "generation");
    if (!instance || !guest_instance_valid(instance, instance_len))
        return bad(why, "instance must be %d of [a-z2-7]", GUEST_INSTANCE_LEN);
    if (!json_is_integer(generation) || json_integer_value(generation) < 1 ||
        json_integer_value(generation) > UINT32_MAX)
        return bad(why, "generation must be a whole number from 1 to %u", UINT32_MAX);
    ret->has_token = json_object_get(request, "token") != NULL;
    if (ret->has_token &&
        (!token || guest_hex_parse(token, token_len, ret->token, sizeof ret->token)))
        return bad(why, "token must be %d hexadecimal digits", 2 * WIRE_TOKEN_SIZE);
    if (facts->has_token && !ret->has_token)
        return bad(why, "token is missing: this machine is reached by serial ports");
    memcpy(ret->instance, instance, GUEST_INSTANCE_LEN + 1);
    ret->generation = (uint32_t)json_integer_value(generation);
    if (ret->generation > facts->generation)
        return 0;
    bad(why, "generation %u is not larger than this machine's, %u", ret->generation,
        facts->generation);
    why->code = "old_generation";
    return -1;
}

static bool hostname_valid(const char *name, size_t len)
{
    static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
    return name && len >= 1 && len <= HOSTNAME_MAX && strspn(name, LETTERS) == len;
}

int guest_restore_parse(json_t *request, const struct guest_facts *facts, struct guest_restore *ret,
                        struct guest_refusal *why)
{
    struct guest_restore restore = {.entropy_len = 0};
    const char *entropy;
    uint8_t id[GUEST_MACHINE_ID_LEN / 2];
    size_t entropy_digits = text(request, "entropy", &entropy);
    size_t hostname_len = text(request, "hostname", &restore.hostname);
    size_t id_len = text(request, "machine_id", &restore.machine_id);
    if (known_fields_only(request, why) || parse_identity(request, facts, &restore.identity, why))
        return -1;
    restore.entropy_len = entropy_digits / 2;
    if (time_in(request, "wall_ms", &restore.wall_ms) ||
        time_in(request, "uptime_ms", &restore.uptime_ms))
        return bad(why, "wall_ms and uptime_ms must be whole numbers of milliseconds");
    if (!entropy || restore.entropy_len < GUEST_ENTROPY_MIN ||
        restore.entropy_len > GUEST_ENTROPY_MAX ||
        guest_hex_parse(entropy, entropy_digits, restore.entropy, restore.entropy_len))
        return bad(why, "entropy must be %d to %d bytes in hexadecimal", GUEST_ENTROPY_MIN,
                   GUEST_ENTROPY_MAX);
    if (!hostname_valid(restore.hostname, hostname_len))
        return bad(why, "hostname must be 1 to %d letters, digits and hyphens", HOSTNAME_MAX);
    if (!restore.machine_id || guest_hex_parse(restore.machine_id, id_len, id, sizeof id))
        return bad(why, "machine_id must be %d hexadecimal digits", GUEST_MACHINE_ID_LEN);
    *ret = restore;
    return 0;
}

/* ---- the steps: 0, or -1 and errno ---- */

/* RNDADDENTROPY fills the input pool alone: without RNDRESEEDCRNG the generators that feed
 * /dev/urandom go on as those of every other clone. */
static int reseed(const struct guest_restore *restore)
{
    union {
        struct rand_pool_info info;
        uint32_t words[2 + GUEST_ENTROPY_MAX / 4];
    } pool = {.info.entropy_count = (int)restore->entropy_len * 8,
              .info.buf_size = (int)restore->entropy_len};
    memcpy(pool.words + 2, restore->entropy, restore->entropy_len);
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int failed = ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG);
    int saved = errno;
    close(fd);
    explicit_bzero(&pool, sizeof pool);
    errno = saved;
    return failed ? -1 : 0;
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* What the clock lacked, in milliseconds, and the clock set. However long the message took to come
 * and waited here: the uptime has gone on meanwhile. */
static int set_clock(const struct guest_restore *restore, int64_t *ret_skew_ms)
{
    int64_t since_ns = now_ns(CLOCK_BOOTTIME) - restore->uptime_ms * NS_PER_MS;
    int64_t wall_ns = restore->wall_ms * NS_PER_MS + since_ns;
    const struct timespec wall = {.tv_sec = wall_ns / NS_PER_S, .tv_nsec = wall_ns % NS_PER_S};
    *ret_skew_ms = (wall_ns - now_ns(CLOCK_REALTIME)) / NS_PER_MS;
    return clock_settime(CLOCK_REALTIME, &wall);
}

int guest_machine_id_renew(const char *path, const char *id)
{
    char line[GUEST_MACHINE_ID_LEN + 2];
    struct stat st;
    int len = snprintf(line, sizeof line, "%s\n", id);
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) /* there is none, or a link, a directory, a FIFO that nobody reads */
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EISDIR ||
                       errno == ENXIO
                   ? 0
                   : -1;
    int failed = fstat(fd, &st);
    /* In place: a full disk has room for what is overwritten. */
    if (!failed && S_ISREG(st.st_mode))
        failed = pwrite(fd, line, (size_t)len, 0) != len || ftruncate(fd, len);
    int saved = errno;
    close(fd);
    errno = saved;
    return failed ? -1 : 0;
}

/* An image without these files gets none: nothing in it asks for them. */
static int renew_machine_ids(const char *id)
{
    return guest_machine_id_renew("/etc/machine-id", id) ||
                   guest_machine_id_renew("/var/lib/dbus/machine-id", id)
               ? -1
               : 0;
}

static int write_uuid(const char *path)
{
    char line[UUID_LINE];
    int from = open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC);
    unlink(path);
    int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    bool done = from >= 0 && to >= 0 && read(from, line, sizeof line) == sizeof line &&
                write(to, line, sizeof line) == sizeof line;
    int saved = errno;
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    errno = saved;
    return done ? 0 : -1;
}

/* The kernel makes its boot id once and takes no other: what is read in its place is ours. */
static int renew_boot_id(void)
{
    static const char KERNELS[] = "/proc/sys/kernel/random/boot_id", OURS[] = "/run/.boot_id";
    const unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (write_uuid(OURS))
        return -1;
    umount2(KERNELS, MNT_DETACH); /* of the restore before this one */
    int failed =
        mount(OURS, KERNELS, NULL, MS_BIND, NULL) || mount(NULL, KERNELS, NULL, flags, NULL);
    int saved = errno;
    unlink(OURS);
    errno = saved;
    return failed ? -1 : 0;
}

/* NULL, or what could not be made different. */
static const char *make_different(const struct guest_restore *restore, int64_t *ret_skew_ms)
{
    if (reseed(restore))
        return "the kernel's random numbers";
    if (set_clock(restore, ret_skew_ms))
        return "the clock";
    if (sethostname(restore->hostname, strlen(restore->hostname)))
        return "the hostname";
    if (renew_machine_ids(restore->machine_id))
        return "/etc/machine-id";
    if (renew_boot_id())
        return "the boot id";
    return NULL;
}

/* ---- the answer ---- */

static int refuse_step(struct guest_session *session, uint64_t id, const char *what)
{
    char message[160];
    snprintf(message, sizeof message, "%s: %s", what, strerror(errno));
    return guest_refuse(session, id, "cannot_restore", message);
}

int guest_restore(struct guest_session *session, uint64_t id, json_t *request)
{
    int64_t skew_ms = 0;
    struct guest_restore restore;
    struct guest_refusal why;
    if (guest_restore_parse(request, session->facts, &restore, &why))
        return guest_refuse(session, id, why.code, why.message);
    if (session->facts->init < 0)
        return guest_refuse(session, id, "cannot_restore", "this agent is not a machine's");
    const char *what = make_different(&restore, &skew_ms);
    if (!what && guest_handover_ask(session->facts->init, &restore.identity))
        what = "executing the agent anew";
    explicit_bzero(restore.entropy, sizeof restore.entropy);
    if (what)
        return refuse_step(session, id, what);
    /* The only session left: whoever calls from now on is served by the next agent. */
    guest_conn_send_json(session->conn, json_pack("{s:I,s:b,s:I}", "id", (json_int_t)id, "ok", 1,
                                                  "clock_skew_ms", (json_int_t)skew_ms));
    _exit(0);
}
