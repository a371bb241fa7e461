/*
 * guest: the agent, PID 1 in every VM. main.c boots, supervise.c is what PID 1 does then; each
 * connection is served by a process of its own (session.c), so a stuck peer blocks nobody, and
 * nothing a session does can end PID 1. After a restore PID 1 executes itself anew (handover.c).
 * The bytes are in vsock/wire.h. The host is not trusted with lengths either.
 */
#ifndef MOTTE_GUEST_INTERNAL_H
#define MOTTE_GUEST_INTERNAL_H

#include "vsock/wire.h"
#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* ---- facts of this boot ---- */

enum { GUEST_INSTANCE_LEN = 20, GUEST_HOSTNAME_LEN = 12 };

struct guest_facts {
    char instance[GUEST_INSTANCE_LEN + 1];
    bool has_token;
    uint8_t token[WIRE_TOKEN_SIZE];
    int ports; /* serial ports to look for */
    uint32_t generation;
    int64_t boot_ms;
    const char *cgroups; /* directory that gets one cgroup per exec; NULL: none (tests) */
    int init;            /* a session's way to PID 1 (handover.c); -1: none (tests) */
};
/* From the kernel's command line. -1: motte.instance is missing or malformed, or motte.token is. */
int guest_facts_parse(const char *cmdline, struct guest_facts *ret);
/* Exactly `size` bytes from as many pairs of lower-case hexadecimal digits. 0 or -1. */
int guest_hex_parse(const char *text, size_t len, uint8_t *ret, size_t size);
bool guest_instance_valid(const char *text, size_t len);

int64_t guest_mono_ms(void);
int64_t guest_boot_ms(void);
/* A line on the console: few, since under emulation each byte costs. */
void guest_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Says `what` and errno, then reboots: with reboot=t or panic=-1 the VMM ends at once. */
_Noreturn void guest_die(const char *what);
/* Says how it ends, "shutdown" or "reset", and resets: the only end that every VMM sees. */
_Noreturn void guest_bye(const char *how);
/* One write(2) of text into an existing file. 0 or -1. */
int guest_put(const char *path, const char *text);

/* ---- boot ---- */

/* Console, /proc, /sys, modules; then the image with its writable layer, and into it. */
void guest_boot_early(void);
void guest_boot_root(void);
/* Loads what /modules/order lists: one file a line, after it perhaps the virtio device id without
 * which the module is not wanted. */
void guest_modules_load(void);
bool guest_virtio_has(unsigned long device_id);

/* ---- connections ---- */

enum {
    GUEST_FRAME_SIZE = WIRE_HEADER_SIZE + WIRE_FRAME_MAX,
    GUEST_CHUNK = 32768, /* of output in a frame */
    GUEST_MARK_SIZE = WIRE_TOKEN_SIZE + WIRE_NONCE_SIZE,
};

struct guest_frame {
    enum wire_kind kind;
    const uint8_t *data; /* borrowed until the next call */
    size_t len;
};

/* The only reader and writer of its descriptor. On a serial port nothing tells where one host
 * connection ends and the next begins, so each begins with a mark, which is looked for in every
 * byte that comes in. */
struct guest_conn {
    int fd;
    const uint8_t *token; /* serial ports; NULL: a socket */
    int sigio;            /* serial ports: a signalfd that wakes when a host comes or goes */
    bool ended;           /* nothing more can be read or written in this session */
    bool marked;          /* serial ports: a new session's mark lies at the front of `in` */
    int64_t absent_since; /* serial ports: no host on the other side since; 0: there is one */
    size_t taken;         /* bytes of `in` that the frame handed out last occupies */
    size_t in_at, in_end, out_at, out_end;
    uint8_t in[2 * GUEST_FRAME_SIZE], out[GUEST_FRAME_SIZE + 4096];
};

/* 1 and the next whole frame; 0: bytes are missing; -1: the session is over. */
int guest_conn_next(struct guest_conn *conn, struct guest_frame *ret);
/* Waits for the next frame. -1: the session is over. */
int guest_conn_read(struct guest_conn *conn, struct guest_frame *ret);
bool guest_conn_sending(const struct guest_conn *conn);
/* Appends a frame to what is to be sent; the caller has seen that nothing waits, or sends little.
 */
int guest_conn_queue(struct guest_conn *conn, enum wire_kind kind, const void *data, size_t len);
/* Sends what is queued, taking in what comes meanwhile. -1: the session is over. */
int guest_conn_send_all(struct guest_conn *conn);
int guest_conn_send_json(struct guest_conn *conn, json_t *json /* stolen */);
/* One poll() over the connection and fds[1..count-1]; fds[0] is the connection's. Sends what it can
 * and takes what came while there is room. timeout_ms -1: none. */
void guest_conn_poll(struct guest_conn *conn, struct pollfd *fds, nfds_t count, int timeout_ms);
/* How long no host has been there; always 0 for sockets. */
int64_t guest_conn_absent_ms(const struct guest_conn *conn);
/* Serial ports: waits for the next session's mark and answers it. -1: the port is gone. */
int guest_conn_next_session(struct guest_conn *conn);

/* ---- sessions ---- */

struct guest_session {
    struct guest_conn *conn;
    const struct guest_facts *facts;
    bool control;      /* the hello connection: no exec here, so that pings are answered */
    uint64_t last_id;  /* of the host's requests */
    uint64_t hello_id; /* of our hello that waits for its answer; 0: none */
};
/* Serves until the connection ends. With `control`, says hello first. */
void guest_session_run(struct guest_session *session);
/* {"id":…,"ok":false,…}. -1: the session is over. */
int guest_refuse(struct guest_session *session, uint64_t id, const char *code, const char *message);

/* ---- exec ---- */

enum { GUEST_GROUPS_MAX = 64, GUEST_TIMEOUT_MAX_MS = 7 * 24 * 3600 * 1000 };

struct guest_user {
    uid_t uid;
    gid_t gid;
    gid_t groups[GUEST_GROUPS_MAX];
    size_t group_count;
    char home[256];
};
/* "name", "uid" or "uid:gid", by the image's own /etc/passwd and /etc/group. -1: no such user. */
int guest_user_find(const char *text, struct guest_user *ret);

struct guest_command {
    char **argv;     /* array owned, strings borrowed from the request */
    char **env;      /* owned */
    const char *cwd; /* borrowed */
    struct guest_user user;
    uint32_t timeout_ms;
    bool input;
    bool terminal; /* in the place of pipes; its size: */
    unsigned short rows, cols;
};
struct guest_refusal {
    const char *code;
    char message[160];
};
/* Fills it; returns -1. */
__attribute__((format(printf, 3, 4))) int guest_deny(struct guest_refusal *why, const char *code,
                                                     const char *fmt, ...);
/* The same of a name of any bytes: "<name>: <why>". */
int guest_deny_name(struct guest_refusal *why, const char *code, const char *name,
                    const char *words);
/* On -1 the refusal says why. Release in any case. */
int guest_command_parse(json_t *request, struct guest_command *ret, struct guest_refusal *why);
void guest_command_release(struct guest_command *command);
/* In the child: becomes the command, or says on stderr why not and exits with 126 or 127. */
_Noreturn void guest_command_become(const struct guest_command *command, const int stdio[3]);

/* A terminal: our end, non-blocking, to write to and to read from, and the command's three. -1 and
 * errno: some may be open. */
int guest_terminal_open(const struct guest_command *command, int *to, int *from, int theirs[3]);
/* {"op":"resize","rows":R,"cols":C}; false: it is no such message. */
bool guest_terminal_resize(int fd, json_t *message);

/* Serves one exec request. -1: the session is over. */
int guest_exec(struct guest_session *session, uint64_t id, json_t *request);

struct guest_cgroup {
    char path[96]; /* "": none */
    int fd;
    int pressure; /* POLLPRI: it thrashes at its memory limit; -1: unknown */
};
/* Once, at boot: limits for all commands together, so that they never take the agent's memory. */
void guest_cgroup_prepare(const char *parent);
int guest_cgroup_make(const char *parent, struct guest_cgroup *ret);
/* Kills all in it; without a cgroup the first process and its group. */
void guest_cgroup_kill(const struct guest_cgroup *cgroup, pid_t pid, int pidfd);
/* Kills and removes what is left of commands whose sessions were ended. */
void guest_cgroup_clear(const char *parent);
/* Did the kernel kill anything in it for want of memory? */
bool guest_cgroup_oom(const struct guest_cgroup *cgroup);
void guest_cgroup_remove(struct guest_cgroup *cgroup);

/* ---- files ---- */

/* What a request about a file says. */
struct guest_file {
    const char *path; /* borrowed from the request; absolute, below PATH_MAX */
    uint32_t mode;
    size_t limit;             /* of names in a page */
    char after[NAME_MAX + 1]; /* the name before the page's first; "": from the start */
    bool parents;             /* make the directories that lead to it */
    bool recursive;           /* and all that is in it */
};
enum { GUEST_MODE_MAX = 07777 };
/* On -1 the refusal says why. */
int guest_file_parse(json_t *request, struct guest_file *ret, struct guest_refusal *why);
/* Each serves one request. -1: the session is over. */
int guest_file_put(struct guest_session *session, uint64_t id, json_t *request);
int guest_file_get(struct guest_session *session, uint64_t id, json_t *request);
int guest_file_remove(struct guest_session *session, uint64_t id, json_t *request);
int guest_file_list(struct guest_session *session, uint64_t id, json_t *request);
int guest_file_pack(struct guest_session *session, uint64_t id, json_t *request);
int guest_file_unpack(struct guest_session *session, uint64_t id, json_t *request);

/* What the kernel said no to, by errno. Returns -1. */
int guest_file_refuse(struct guest_refusal *why, const char *path);
/* The directory's part of a path, which ends before the last component. 0 or -1. */
int guest_file_split(const char *path, char dir[static PATH_MAX], const char **ret_name,
                     struct guest_refusal *why);
/* The directory, and those that lead to it. 0 or -1 and errno; `dir` is then what could not be made. */
int guest_file_make_parents(char *dir);
json_int_t guest_file_mtime_ms(const struct stat *st);
/* Waits for the host's next frame; a host that has left a serial port is gone. -1: the session is
 * over. */
int guest_file_frame(struct guest_conn *conn, struct guest_frame *ret);

/* A file that lies beside its name, under one of ours, until it is whole. */
enum { GUEST_TEMP_SIZE = sizeof ".motte-0123456789abcdef" };
struct guest_temp {
    int dir; /* borrowed */
    int fd;  /* -1: there is none */
    char name[GUEST_TEMP_SIZE];
    size_t unlooked; /* bytes since the guest's memory was looked at */
};
/* Each 0, or -1 and errno: ENOSPC also before the guest's memory is full. */
int guest_temp_name(char ret[static GUEST_TEMP_SIZE]);
int guest_temp_open(int dir, struct guest_temp *ret);
int guest_temp_write(struct guest_temp *temp, const uint8_t *data, size_t len);
int guest_temp_keep(struct guest_temp *temp, const char *name, uint32_t mode);
void guest_temp_drop(struct guest_temp *temp); /* nothing after guest_temp_keep() */

enum { GUEST_DEPTH_MAX = 128 }; /* of directories in one another; each is open meanwhile */
/* The directory `name` of `dir`, to be read: neither a link nor of another file system than `dev`
 * (EXDEV). NULL and errno. */
DIR *guest_tree_open(int dir, const char *name, dev_t dev);
/* Removes `name` and all that is in it, as far as it can. 0 or -1 and errno. */
int guest_tree_remove(int dir, const char *name);

/* ---- restore: a machine that comes from a snapshot becomes one of its own ---- */

enum { GUEST_ENTROPY_MIN = 32, GUEST_ENTROPY_MAX = 512, GUEST_MACHINE_ID_LEN = 32 };

/* Who the machine is from now on. */
struct guest_identity {
    char instance[GUEST_INSTANCE_LEN + 1];
    bool has_token;
    uint8_t token[WIRE_TOKEN_SIZE];
    uint32_t generation;
};
struct guest_restore {
    struct guest_identity identity;
    int64_t wall_ms, uptime_ms; /* the host's clock when guest_boot_ms() was that */
    const char *hostname;       /* borrowed from the request, as is the next */
    const char *machine_id;
    size_t entropy_len;
    uint8_t entropy[GUEST_ENTROPY_MAX];
};
/* On -1 the refusal says why. */
int guest_restore_parse(json_t *request, const struct guest_facts *facts, struct guest_restore *ret,
                        struct guest_refusal *why);
/* Serves one restore request. Does not return when it was done: the agent begins anew. -1: the
 * session is over. */
int guest_restore(struct guest_session *session, uint64_t id, json_t *request);
/* Writes the id into a file that is there, and a regular one; any other is left alone. 0 or -1. */
int guest_machine_id_renew(const char *path, const char *id);

/* What PID 1 works with: found at boot, and handed on when the agent executes itself anew. */
struct guest_handover {
    struct guest_facts facts;
    int listener;                 /* vsock; -1: serial ports */
    int ports[WIRE_SERIAL_PORTS]; /* descriptors, open as long as the machine lives; -1: none */
};
/* Everything that can fail without harm: the program and a pipe that holds *next. 0 or -1. */
int guest_handover_prepare(const struct guest_handover *next, int fds[static 2]);
/* Becomes the same program again, which finds *next by guest_handover_take(). */
_Noreturn void guest_handover_execute(const struct guest_handover *next, const int fds[static 2]);
/* 1: this program was executed by guest_handover_execute(), and *ret is what it handed on. 0: it
 * was not. -1: it was, and nothing can be read. */
int guest_handover_take(int argc, char **argv, struct guest_handover *ret);
/* A session asks PID 1 to end all others and to execute itself anew under this identity, once the
 * session has ended. 0: it waits for that end. -1 and errno: all is as it was. */
int guest_handover_ask(int init, const struct guest_identity *identity);
/* PID 1's side. False: nobody asked. */
bool guest_handover_asked(int socket, pid_t *ret_asker, struct guest_identity *ret);
void guest_handover_answer(int socket, int error);

/* PID 1's life: hands each connection to a process of its own, reaps whatever ends. */
_Noreturn void guest_supervise(const struct guest_handover *start);

/* ---- channels ---- */

/* Serves the port called "motte.<n>" for ever. */
_Noreturn void guest_serial_serve(int fd, int port, const struct guest_facts *facts);
/* Finds the device of "motte.<n>" by its name, waiting for it until the deadline. */
int guest_serial_find(int port, int64_t deadline_ms, char device[static 32]);
int guest_vsock_listen(void);
/* A connection from the host, or -1. */
int guest_vsock_accept(int listener);
/* Calls the host's hello port, again and again for 10 s. -1: nobody there. */
int guest_vsock_hello(void);

#endif
