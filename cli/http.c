/* Requests: one at a time, and one more while an event stream is open. libcurl's multi interface, so
 * that signals and this program's input are seen while an answer is waited for. */
#include "cli/internal.h"
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <strings.h>

enum { ANSWER_MAX = 16 * 1024 * 1024, TICK_MS = 100, CONNECT_S = 10, SILENCE_S = 45 };

/* A request on its way. */
struct pass {
    struct cli *cli;
    const struct cli_request *request;
    CURL *easy;
    struct buf kept; /* an answer that is not handed on */
    char *sent;      /* the body, borrowed; NULL: none */
    struct error *err;
    struct cli_answer answer;
    bool stopped; /* by `write`, without an error */
};

int cli_http_open(struct cli *cli, struct error *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return error_set(err, ERR_NO_MEMORY, 0, "cannot start libcurl");
    for (size_t i = 0; i < COUNT_OF(cli->multis); i++)
        if ((cli->multis[i] = curl_multi_init()) == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "cannot start libcurl");
    return 0;
}

void cli_http_close(struct cli *cli)
{
    for (size_t i = 0; i < COUNT_OF(cli->multis); i++)
        if (cli->multis[i] != NULL)
            curl_multi_cleanup(cli->multis[i]);
    cJSON_Delete(TAKE_PTR(cli->problem));
    curl_global_cleanup();
}

void cli_answer_release(struct cli_answer *answer)
{
    cJSON_Delete(TAKE_PTR(answer->json));
}

static long status_of(CURL *easy)
{
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static size_t on_body(char *data, size_t one, size_t len, void *context)
{
    struct pass *pass = context;
    (void)one;
    if (pass->request->write == NULL || status_of(pass->easy) / 100 != 2)
        return buf_append(&pass->kept, data, len) == 0 ? len : 0;
    int done = pass->request->write(pass->request->context, data, len, pass->err);
    pass->stopped = done > 0;
    return done == 0 ? len : 0;
}

static size_t on_read(char *out, size_t one, size_t len, void *context)
{
    struct pass *pass = context;
    ssize_t got = pass->request->read(pass->request->context, out, one * len, pass->err);
    return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

static size_t on_header(char *line, size_t one, size_t len, void *context)
{
    static const char digest[] = "repr-digest:";
    struct pass *pass = context;
    size_t size = one * len, begin = sizeof(digest) - 1;
    if (size > begin && strncasecmp(line, digest, begin) == 0) {
        while (begin < size && line[begin] == ' ')
            begin++;
        size_t end = size;
        while (end > begin && (line[end - 1] == '\r' || line[end - 1] == '\n'))
            end--;
        if (end - begin < sizeof(pass->answer.digest)) {
            memcpy(pass->answer.digest, line + begin, end - begin);
            pass->answer.digest[end - begin] = '\0';
        }
    }
    return size;
}

/* The service's own words for what it refused; the answer's code is 0 where it has none of ours. */
static int refused(struct pass *pass)
{
    struct error ignored = {0};
    cJSON *problem = NULL;
    struct cli *cli = pass->cli;
    cJSON_Delete(TAKE_PTR(cli->problem));
    if (pass->kept.len > 0)
        json_parse(pass->kept.data, pass->kept.len, &problem, &ignored);
    const char *code = cJSON_GetStringValue(cJSON_GetObjectItem(problem, "code"));
    const char *detail = cJSON_GetStringValue(cJSON_GetObjectItem(problem, "detail"));
    cli->problem = problem;
    enum error_code found = ERR_INTERNAL;
    for (int i = 1; code != NULL && i < ERR_COUNT; i++)
        if (strcmp(error_code_name((enum error_code)i), code) == 0)
            found = (enum error_code)i;
    if (detail == NULL)
        return error_set(pass->err, found, 0, "%s answered HTTP %ld", cli->address,
                         pass->answer.status);
    return error_set(pass->err, found, 0, "%.240s", detail);
}

/* libcurl speaks of port 80 where a socket of this host is meant. */
static const char *reason(const struct pass *pass, CURLcode code, const char *said)
{
    long number = 0;
    curl_easy_getinfo(pass->easy, CURLINFO_OS_ERRNO, &number);
    if (code == CURLE_COULDNT_CONNECT && number != 0)
        return strerror((int)number);
    return said[0] != '\0' ? said : curl_easy_strerror(code);
}

static int broken(struct pass *pass, CURLcode code, const char *said)
{
    if (pass->err->code != ERR_NONE)
        return -1;
    if (code == CURLE_ABORTED_BY_CALLBACK || code == CURLE_WRITE_ERROR)
        return error_set(pass->err, ERR_NO_MEMORY, 0,
                         "the answer is larger than this program takes");
    pass->cli->unreached = true;
    pass->cli->unconnected = code == CURLE_COULDNT_CONNECT;
    if (pass->answer.status == 0)
        return error_set(pass->err, ERR_SYSTEM, 0,
                         "cannot reach the service at %.100s: %.100s. Does motted run there?",
                         pass->cli->address, reason(pass, code, said));
    return error_set(pass->err, ERR_SYSTEM, 0, "the answer of %.100s broke off: %.100s",
                     pass->cli->address, reason(pass, code, said));
}

static int finish(struct pass *pass, CURLcode code, const char *said)
{
    curl_off_t length = -1;
    pass->answer.status = status_of(pass->easy);
    curl_easy_getinfo(pass->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    pass->answer.length = (int64_t)length;
    if (pass->stopped && pass->err->code == ERR_NONE)
        return 0;
    /* Who refuses an upload may close before it has come: what it said counts. */
    if (pass->answer.status >= 400 && pass->kept.len > 0)
        return pass->err->code == ERR_NONE || code == CURLE_OK ? refused(pass) : -1;
    if (code != CURLE_OK)
        return broken(pass, code, said);
    if (pass->answer.status >= 300)
        return refused(pass);
    if (pass->kept.len > 0 && pass->request->write == NULL)
        return json_parse(pass->kept.data, pass->kept.len, &pass->answer.json, pass->err);
    return 0;
}

/* -1: a signal or the caller ends it. */
static int look_around(struct pass *pass, const struct curl_waitfd *extra)
{
    const struct cli_request *request = pass->request;
    if (request->ready == NULL)
        return extra[0].revents != 0 ? cli_signal_heed(pass->cli, pass->err) : 0;
    for (size_t i = 0; i < 2; i++)
        if (extra[i].revents != 0 && request->ready(request->context, extra[i].fd, pass->err) != 0)
            return -1;
    return request->ready(request->context, -1, pass->err);
}

static int watched(const struct cli_request *request)
{
    return request->ready != NULL && request->watched != NULL ? *request->watched : -1;
}

static int drive(struct pass *pass, CURLM *multi, CURLcode *ret)
{
    for (;;) {
        int running = 0, left = 0;
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return error_set(pass->err, ERR_INTERNAL, 0, "libcurl does not go on");
        CURLMsg *message = curl_multi_info_read(multi, &left);
        if (message != NULL && message->msg == CURLMSG_DONE) {
            *ret = message->data.result;
            return 0;
        }
        struct curl_waitfd extra[2] = {
            {.fd = pass->cli->signals, .events = CURL_WAIT_POLLIN},
            {.fd = watched(pass->request), .events = CURL_WAIT_POLLIN},
        };
        unsigned count = extra[1].fd >= 0 ? 2 : 1;
        int wait_ms = pass->request->ready != NULL ? TICK_MS : 1000;
        if (curl_multi_poll(multi, extra, count, wait_ms, NULL) != CURLM_OK)
            return error_set(pass->err, ERR_INTERNAL, 0, "libcurl cannot wait");
        if (look_around(pass, extra) != 0)
            return -1;
    }
}

static struct curl_slist *add(struct curl_slist *list, const char *name, const char *value)
{
    char line[512];
    snprintf(line, sizeof(line), "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(list, line);
    return longer != NULL ? longer : list;
}

static struct curl_slist *headers(const struct pass *pass)
{
    const struct cli_request *request = pass->request;
    struct curl_slist *list = NULL;
    char text[1024];
    if (pass->cli->token != NULL) {
        snprintf(text, sizeof(text), "Bearer %.900s", pass->cli->token);
        char line[1040];
        snprintf(line, sizeof(line), "Authorization: %s", text);
        list = curl_slist_append(list, line);
    }
    if (request->prefer != NULL)
        list = add(list, "Prefer", request->prefer);
    if (request->after != NULL && request->after[0] != '\0')
        list = add(list, "Last-Event-ID", request->after);
    if (request->key != NULL)
        list = add(list, "Idempotency-Key", request->key);
    if (request->digest != NULL)
        list = add(list, "Repr-Digest", request->digest);
    if (request->type != NULL || request->body != NULL)
        list =
            add(list, "Content-Type", request->type != NULL ? request->type : "application/json");
    return add(list, "Expect", ""); /* do not wait for a 100 */
}

static void address(const struct pass *pass)
{
    const struct cli *cli = pass->cli;
    char url[4096];
    bool local = cli->address[0] == '/';
    snprintf(url, sizeof(url), "%s%s", local ? "http://motte" : cli->address, pass->request->path);
    curl_easy_setopt(pass->easy, CURLOPT_URL, url);
    if (local)
        curl_easy_setopt(pass->easy, CURLOPT_UNIX_SOCKET_PATH, cli->address);
    if (cli->ca != NULL)
        curl_easy_setopt(pass->easy, CURLOPT_CAINFO, cli->ca);
    curl_easy_setopt(pass->easy, CURLOPT_PROXY, "");
}

static void body(struct pass *pass)
{
    const struct cli_request *request = pass->request;
    if (request->read != NULL) {
        curl_easy_setopt(pass->easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(pass->easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(pass->easy, CURLOPT_READDATA, pass);
        curl_easy_setopt(pass->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->length);
    } else if (strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(pass->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(pass->easy, CURLOPT_POSTFIELDS, pass->sent != NULL ? pass->sent : "");
    }
    curl_easy_setopt(pass->easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void prepare(struct pass *pass, struct curl_slist *list, char *said)
{
    curl_easy_setopt(pass->easy, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(pass->easy, CURLOPT_ERRORBUFFER, said);
    curl_easy_setopt(pass->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(pass->easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(pass->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(pass->easy, CURLOPT_WRITEDATA, pass);
    curl_easy_setopt(pass->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(pass->easy, CURLOPT_HEADERDATA, pass);
    if (pass->request->stream) {
        curl_easy_setopt(pass->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(pass->easy, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    }
    address(pass);
    body(pass);
}

static int perform(struct pass *pass)
{
    char said[CURL_ERROR_SIZE] = "";
    struct cli *cli = pass->cli;
    cli->unreached = cli->unconnected = false;
    cJSON_Delete(TAKE_PTR(cli->problem));
    CURLM *multi = cli->multis[cli->depth];
    pass->easy = curl_easy_init();
    if (pass->easy == NULL)
        return error_set(pass->err, ERR_NO_MEMORY, 0, "out of memory for a request");
    struct curl_slist *list = headers(pass);
    prepare(pass, list, said);
    CURLcode code = CURLE_OK;
    int failed = curl_multi_add_handle(multi, pass->easy) == CURLM_OK ? 0 : -1;
    cli->depth++;
    if (failed != 0)
        error_set(pass->err, ERR_NO_MEMORY, 0, "out of memory for a request");
    else if ((failed = drive(pass, multi, &code)) == 0)
        failed = finish(pass, code, said);
    cli->depth--;
    curl_multi_remove_handle(multi, pass->easy);
    curl_easy_cleanup(pass->easy);
    curl_slist_free_all(list);
    return failed;
}

int cli_http(struct cli *cli, const struct cli_request *request, struct cli_answer *ret,
             struct error *err)
{
    if (cli->depth >= COUNT_OF(cli->multis))
        return error_set(err, ERR_INTERNAL, 0, "too many requests at once");
    struct pass pass = {
        .cli = cli, .request = request, .kept.max = ANSWER_MAX, .err = err, .answer.length = -1};
    cleanup_free char *sent = request->body != NULL ? json_print(request->body) : NULL;
    if (request->body != NULL && sent == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a request");
    pass.sent = sent;
    int failed = perform(&pass);
    buf_release(&pass.kept);
    if (failed == 0 && ret != NULL)
        *ret = pass.answer;
    else
        cli_answer_release(&pass.answer);
    return failed;
}

int cli_get(struct cli *cli, const char *path, struct cli_answer *ret, struct error *err)
{
    struct cli_request request = {.method = "GET", .path = path};
    return cli_http(cli, &request, ret, err);
}
