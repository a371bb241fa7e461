/*
 * What the files of the client share: its tables, its state, its way to the service, what it prints.
 * One thread. Errors are values; only main() prints them and ends the program.
 */
#ifndef MOTTE_CLI_INTERNAL_H
#define MOTTE_CLI_INTERNAL_H

#include "base/base.h"
#include "cli/sse.h"
#include "json/json.h"

/* ---- tables: parsing, help, completion and the manual page are made of them ------------------ */

struct cli_option {
    const char *name, *value, *help; /* value NULL: it takes none */
    char letter;                     /* 0: none */
};
enum cli_operand { CLI_NOTHING, CLI_VM, CLI_SNAPSHOT, CLI_COPY, CLI_WORD };
struct cli_call;
struct cli_command {
    const char *name, *operands, *summary;
    const char *about; /* more sentences, or NULL */
    const struct cli_option *options;
    size_t option_count;
    int (*run)(struct cli_call *call, struct error *err);
    enum cli_operand operand; /* what completion offers */
    unsigned least, most;     /* operands; with `rest`: at least, and this program's own */
    bool
        rest; /* what comes behind its own, or from the first on if it has none, is a command's of a
                  VM: its status is ours, and CLI_NOT_RUN is what we have to say ourselves */
};
struct cli_term {
    const char *name, *help;
};
const struct cli_command *cli_commands(size_t *ret_count);
const struct cli_option *cli_globals(size_t *ret_count);
const struct cli_term *cli_environment(size_t *ret_count);
const struct cli_term *cli_statuses(size_t *ret_count);

enum cli_status {
    CLI_OK,
    CLI_FAILED,
    CLI_USAGE,
    CLI_UNREACHED,
    CLI_NOT_RUN = 125,
    CLI_INTERRUPTED = 130
};

/* ---- state ------------------------------------------------------------------------------------ */

struct cli {
    void *multis[2]; /* libcurl's; the second is for requests made while another goes on */
    unsigned depth;
    const char *address, *token, *ca; /* token NULL: none */
    int signals;                      /* a signalfd: INT, QUIT, TERM, HUP, WINCH */
    bool json;
    bool out_terminal, err_terminal, colours;
    cJSON *problem;   /* of the last answer that refused; or NULL */
    bool unreached;   /* the last request had no answer, or not all of it */
    bool unconnected; /* ... as it was never sent */
    int status;       /* what the program ends with if all went well */
};

enum { CLI_GIVEN_MAX = 128 };
struct cli_given {
    const struct cli_option *option;
    const char *value; /* "" for one that takes none */
};
struct cli_call {
    struct cli *cli;
    const struct cli_command *command;
    struct cli_given given[CLI_GIVEN_MAX];
    size_t given_count;
    char **operands;
    size_t count;
};
/* Operands and options of argv, the command's name excluded; operands point into argv, which is
 * sorted anew. Global options are in `given` as well. ERR_CONFIG. */
int cli_options_parse(struct cli_call *call, int argc, char **argv, struct error *err);
/* The last one's value, or NULL. */
const char *cli_given(const struct cli_call *call, const char *name);
/* As a number within bounds, or *ret stays. */
int cli_given_number(const struct cli_call *call, const char *name, uint64_t min, uint64_t max,
                     uint64_t *ret, struct error *err);
/* Adds `object[member] = {"k": "v"}` of each KEY=VALUE given as `name`, if there is one. */
int cli_given_pairs(const struct cli_call *call, const char *name, cJSON *object,
                    const char *member, struct error *err);
void cli_help(const struct cli_command *command /* NULL: of all */, FILE *out);

/* ---- HTTP --------------------------------------------------------------------------------------- */

/* Up to `size` bytes of a request's body; 0 at its end; -1 with err set ends the request. */
typedef ssize_t cli_read(void *context, char *out, size_t size, struct error *err);
/* Bytes of an answer's body; -1 with err set ends the request, 1 without an error. */
typedef int cli_write(void *context, const char *data, size_t len, struct error *err);
/* A descriptor that can be read, a signal that came, or time that passed (100 ms, fd -1). */
typedef int cli_ready(void *context, int fd, struct error *err);

struct cli_request {
    const char *method, *path; /* the path with its query */
    const cJSON *body;         /* or `read`; borrowed */
    /* Headers, or NULL: Prefer, Last-Event-ID, Content-Type, Idempotency-Key, Repr-Digest. */
    const char *prefer, *after, *type, *key, *digest;
    cli_read *read;
    int64_t length;   /* of what `read` gives; -1: not known */
    cli_write *write; /* of a 2xx's body; NULL: it is JSON */
    cli_ready *ready; /* or NULL */
    /* Beside the signals, with `ready` only: a descriptor, which `ready` may change; -1: none now. */
    const int *watched; /* or NULL */
    void *context;      /* of read, write and ready */
    bool stream;        /* an event stream: something comes at least every 15 s */
};
struct cli_answer {
    long status;
    cJSON *json;      /* owned; NULL: none */
    int64_t length;   /* of its body; -1: not known */
    char digest[128]; /* Repr-Digest, as it came; "" */
};
void cli_answer_release(struct cli_answer *answer);
#define cleanup_answer cleanup(cli_answer_release)

int cli_http_open(struct cli *cli, struct error *err);
void cli_http_close(struct cli *cli);
/* ret may be NULL. A refusal is an error whose code is the problem's, if it is one of ours; the
 * problem stays in cli->problem. ERR_SYSTEM if the service was not reached or the connection broke
 * (cli->unreached), ERR_CANCELLED for a signal where there is no `ready`. */
int cli_http(struct cli *cli, const struct cli_request *request, struct cli_answer *ret,
             struct error *err);
/* GET of JSON. */
int cli_get(struct cli *cli, const char *path, struct cli_answer *ret, struct error *err);
/* A path, malloc'ed: `%s` come percent-encoded, nothing else is a directive. NULL: no memory. */
char *cli_path(const char *fmt, ...);

/* ---- server-sent events ----------------------------------------------------------------------- */

struct cli_events {
    const char *path;
    char after[64]; /* the last id; "" to begin with */
    bool there; /* it is known to be there: a service that is away is waited for from the first */
    bool ends;  /* where the service ends it there is no more to come */
    cli_event_handler *handler;
    cli_ready *ready;
    const int *watched;
    void *context;
};
/* Reads them to the end, over dropped connections and restarts of the service. */
int cli_events_read(struct cli *cli, struct cli_events *events, struct error *err);
/* Of base64; malloc'ed. ERR_JSON. */
int cli_base64(const char *text, size_t len, char **ret, size_t *ret_len, struct error *err);
char *cli_to_base64(const void *data, size_t len); /* malloc'ed, or NULL */

/* ---- what is printed ---------------------------------------------------------------------------- */

enum cli_colour { CLI_PLAIN, CLI_GREEN, CLI_YELLOW, CLI_RED, CLI_BOLD, CLI_FAINT };
enum { CLI_COLUMNS_MAX = 10 };
struct cli_table {
    size_t columns, rows;
    char **cells; /* owned */
    enum cli_colour *colours;
    bool failed; /* no memory */
};
#define cleanup_table cleanup(cli_table_release)
void cli_table_release(struct cli_table *table);
/* The first `columns` cells are the head. NULL is an empty cell. */
void cli_table_cell(struct cli_table *table, enum cli_colour colour, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Each line ends with `ending`. */
void cli_table_print(const struct cli *cli, const struct cli_table *table, const char *ending);
/* Text of others: what would move a terminal's cursor, or change it, becomes `?`. */
void cli_print_text(FILE *out, const char *text, size_t len, bool lines);
int cli_print_json(const cJSON *json, struct error *err);
void cli_size(uint64_t bytes, char out[static 16]);   /* "12.3 MiB" */
void cli_age(const char *since, char out[static 16]); /* "5m", of "2026-01-31T12:00:00.123Z" */
int64_t cli_time_ms(const char *time);                /* -1: none */
enum cli_colour cli_state_colour(const char *state);
/* A member's text, or "-". Borrowed. */
const char *cli_text(const cJSON *object, const char *name);
double cli_real(const cJSON *object, const char *name); /* or -1 */

/* ---- a line that says how far it is, on a terminal only ------------------------------------------ */

struct cli_progress {
    struct cli *cli;
    const char *what;
    int64_t began_us, shown_us;
    int64_t done, total; /* bytes; total -1: not known */
    bool bytes;          /* else only time is shown */
};
void cli_progress_begin(struct cli_progress *progress, struct cli *cli, const char *what,
                        bool bytes);
void cli_progress_show(struct cli_progress *progress);
void cli_progress_end(struct cli_progress *progress); /* the line goes */

/* ---- the terminal ------------------------------------------------------------------------------- */

struct cli_terminal; /* its settings as they were */
/* Every key at once and as it is (`signals`: but for those that make signals). NULL: none. */
struct cli_terminal *cli_terminal_raw(bool signals, struct error *err);
void cli_terminal_restore(struct cli_terminal *terminal); /* NULL is fine */
void cli_terminal_size(unsigned *ret_rows, unsigned *ret_columns);
/* The signal that came, or 0. */
int cli_signal_take(const struct cli *cli);
/* ERR_CANCELLED if one came that ends programs. */
int cli_signal_heed(const struct cli *cli, struct error *err);

/* ---- commands ------------------------------------------------------------------------------------- */

int cli_run(struct cli_call *call, struct error *err);
int cli_create(struct cli_call *call, struct error *err);
int cli_ps(struct cli_call *call, struct error *err);
int cli_rm(struct cli_call *call, struct error *err);
int cli_exec(struct cli_call *call, struct error *err);
int cli_top(struct cli_call *call, struct error *err);
int cli_doctor(struct cli_call *call, struct error *err);
int cli_completion(struct cli_call *call, struct error *err);
int cli_manual(struct cli_call *call, struct error *err);
int cli_logs(struct cli_call *call, struct error *err);
int cli_watch(struct cli_call *call, struct error *err);
int cli_pause(struct cli_call *call, struct error *err);
int cli_resume(struct cli_call *call, struct error *err);
int cli_keepalive(struct cli_call *call, struct error *err);
int cli_snapshot(struct cli_call *call, struct error *err);
int cli_snapshots(struct cli_call *call, struct error *err);
int cli_snapshot_rm(struct cli_call *call, struct error *err);
int cli_fork(struct cli_call *call, struct error *err);
int cli_cp(struct cli_call *call, struct error *err);

/* All of a list's pages, GET /`what` with those `filters` that are given (borrowed, NULL at their
 * end), as one {`what`: [...]}; NULL with err set. */
cJSON *cli_list(const struct cli_call *call, const char *what, const char *const *filters,
                struct error *err);
/* Deletes /`what`/OPERAND of each operand, whatever becomes of one; the first error is told. */
int cli_delete_all(const struct cli_call *call, const char *what, struct error *err);
/* The heads of a table that begins. */
void cli_table_heads(struct cli_table *table, const char *const *heads, size_t count);
int cli_table_finish(const struct cli *cli, const struct cli_table *table, struct error *err);

/* ---- what is made -------------------------------------------------------------------------------- */

struct cli_making {
    const char *method; /* NULL: POST, with a key of its own */
    const char *path;
    const cJSON *body; /* or NULL; borrowed */
    bool asynchronous; /* Prefer: respond-async */
    bool there;        /* the service is known to be there: if it is away it is waited for */
    struct cli_progress *progress; /* or NULL */
    int *ret_signal;               /* or NULL: the signal that came meanwhile, or 0 */
};
/* Sends it, for half a minute again and again if its answer is lost, and it is done once all the
 * same. A signal is not heeded until it is known what was made, but a second one is: ERR_CANCELLED. */
int cli_make(struct cli *cli, const struct cli_making *what, struct cli_answer *ret,
             struct error *err);
/* The same with DELETE, of what was made: the service is waited for from the first. cli->problem
 * and cli->unreached stay those of what went wrong before. */
int cli_unmake(struct cli *cli, const char *path, struct error *err);

struct cli_exec_plan {
    const char *vm;
    cJSON *spec;          /* argv and more; the caller frees */
    bool input, terminal; /* it gets this program's input; it has a terminal */
    bool there;           /* the service is known to be there */
};
/* Of operands from `first` on, and options. */
int cli_exec_plan_make(const struct cli_call *call, size_t first, struct cli_exec_plan *ret,
                       struct error *err);
/* Runs a command in a VM with this program's input and output; cli->status is how it ended. Upon a
 * signal, or when its output cannot be written, it is ended with all it started. */
int cli_exec_run(struct cli *cli, const struct cli_exec_plan *plan, struct error *err);

#endif
