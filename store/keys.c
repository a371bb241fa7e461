/* Keys under which callers repeat requests: what became of the first. */
#include "store/internal.h"

/* An owner's keys have numbers that grow; those that are STORE_KEYS_MAX behind the last one go. An answer
 * that is larger than its part of STORE_KEYS_BYTES_MAX gets a number as much further on when it is
 * written, so that the numbers bound the bytes too and nobody has to add them up. */
enum { PART = STORE_KEYS_BYTES_MAX / STORE_KEYS_MAX };

/* `status` of a key without an answer. */
enum { UNDERWAY = 0, LOST = -1 };

void store_answer_release(struct store_answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}

static int bind_key(sqlite3_stmt *statement, const struct store_key *key, struct error *err)
{
    int rc = sqlite3_bind_blob(statement, 2, key->key, HASH_SIZE, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return store_fail(sqlite3_db_handle(statement), rc, "binding", err);
    return store_bind_text(statement, 1, key->owner, err);
}

/* ---- begin ---- */

struct beginning {
    const struct store_key *key;
    enum store_key_state state;
    struct store_answer answer; /* owned */
};

static int read_answer(sqlite3_stmt *statement, struct store_answer *ret, struct error *err)
{
    const void *body = sqlite3_column_blob(statement, 3);
    size_t len = (size_t)sqlite3_column_bytes(statement, 3);
    store_answer_release(ret);
    ret->status = (unsigned)sqlite3_column_int(statement, 1);
    snprintf(ret->location, sizeof(ret->location), "%s",
             (const char *)sqlite3_column_text(statement, 2));
    ret->body = malloc(len + 1);
    if (ret->body == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a kept answer");
    if (len > 0)
        memcpy(ret->body, body, len);
    ret->body[len] = '\0';
    ret->len = len;
    return 0;
}

/* 1 when there was such a key, 0, -1. */
static int find(sqlite3 *db, struct beginning *beginning, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "SELECT request, status, location, answer FROM keys"
                           " WHERE owner = ?1 AND key = ?2",
                           &statement, err) < 0 ||
        bind_key(statement, beginning->key, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row != 1)
        return row;
    const void *request = sqlite3_column_blob(statement, 0);
    int status = sqlite3_column_int(statement, 1);
    if (request == NULL || memcmp(request, beginning->key->request, HASH_SIZE) != 0)
        beginning->state = STORE_KEY_OTHER;
    else if (status <= UNDERWAY)
        beginning->state = status == LOST ? STORE_KEY_LOST : STORE_KEY_UNDERWAY;
    else
        beginning->state = STORE_KEY_ANSWERED;
    if (beginning->state != STORE_KEY_ANSWERED)
        return 1;
    return read_answer(statement, &beginning->answer, err) < 0 ? -1 : 1;
}

static int insert(sqlite3 *db, const struct store_key *key, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "INSERT INTO keys (owner, key, request, once, number, made_up_ms)"
                           " VALUES (?1, ?2, ?3, ?4,"
                           " 1 + ifnull((SELECT max(number) FROM keys WHERE owner = ?1), 0),"
                           " (SELECT up_ms FROM clock))",
                           &statement, err) < 0 ||
        bind_key(statement, key, err) < 0)
        return -1;
    int rc = sqlite3_bind_blob(statement, 3, key->request, HASH_SIZE, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "binding", err);
    if (store_bind_number(statement, 4, key->once, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

/* A caller's own oldest make room for his newest. */
static int trim(sqlite3 *db, const struct store_key *key, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "DELETE FROM keys WHERE owner = ?1 AND status <> 0 AND number <="
                           " (SELECT max(number) FROM keys WHERE owner = ?1) - ?2",
                           &statement, err) < 0 ||
        store_bind_text(statement, 1, key->owner, err) < 0 ||
        store_bind_number(statement, 2, STORE_KEYS_MAX, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int begin(sqlite3 *db, void *context, struct error *err)
{
    struct beginning *beginning = context;
    int found = find(db, beginning, err);
    if (found != 0)
        return found < 0 ? -1 : 0;
    beginning->state = STORE_KEY_NEW;
    return insert(db, beginning->key, err) < 0 ? -1 : trim(db, beginning->key, err);
}

int store_key_begin(struct store *store, const struct store_key *key, enum store_key_state *ret,
                    struct store_answer *ret_answer, struct error *err)
{
    struct beginning beginning = {.key = key};
    if (store_change(store, STORE_ROOM_USUAL, begin, &beginning, err) < 0) {
        store_answer_release(&beginning.answer);
        return -1;
    }
    *ret = beginning.state;
    *ret_answer = beginning.answer;
    return 0;
}

/* ---- end ---- */

static int write_answer(sqlite3 *db, const struct store_key *key, const struct store_answer *answer,
                        const char *instance, struct error *err)
{
    bool fits = answer->len <= STORE_ANSWER_MAX;
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "UPDATE keys SET status = ?3, location = ?4, answer = ?5, instance = ?6,"
                           " number = CASE ?7 WHEN 0 THEN number"
                           " ELSE ?7 + (SELECT max(number) FROM keys WHERE owner = ?1) END"
                           " WHERE owner = ?1 AND key = ?2",
                           &statement, err) < 0 ||
        bind_key(statement, key, err) < 0 ||
        store_bind_number(statement, 3, fits ? (int64_t)answer->status : LOST, err) < 0 ||
        store_bind_text(statement, 4, answer->location, err) < 0 ||
        store_bind_text(statement, 6, instance, err) < 0 ||
        store_bind_number(statement, 7, fits ? (int64_t)(answer->len / PART) : 0, err) < 0)
        return -1;
    int rc = sqlite3_bind_blob(statement, 5, fits ? answer->body : NULL, (int)answer->len,
                               SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "binding", err);
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_keep(sqlite3 *db, const struct store_keep *keep, const void *made, struct error *err)
{
    if (keep == NULL || keep->answer == NULL)
        return 0;
    struct store_answer answer cleanup(store_answer_release) = {0};
    if (keep->answer(keep->made != NULL ? keep->made : made, &answer) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an answer to keep");
    return write_answer(db, &keep->key, &answer, "", err);
}

struct answering {
    const struct store_key *key;
    const struct store_answer *answer;
    const char *instance;
};

static int answer(sqlite3 *db, void *context, struct error *err)
{
    const struct answering *answering = context;
    return write_answer(db, answering->key, answering->answer, answering->instance, err);
}

int store_key_answer(struct store *store, const struct store_key *key,
                     const struct store_answer *ready, const char *instance, struct error *err)
{
    struct answering answering = {key, ready, instance};
    return store_change(store, STORE_ROOM_END, answer, &answering, err);
}

static int release(sqlite3 *db, void *context, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, "DELETE FROM keys WHERE owner = ?1 AND key = ?2", &statement, err) <
            0 ||
        bind_key(statement, context, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_key_release(struct store *store, const struct store_key *key, struct error *err)
{
    struct store_key one = *key;
    return store_change(store, STORE_ROOM_END, release, &one, err);
}

/* ---- what becomes of a VM that an answer has told of before it ran ---- */

static int of_instance(sqlite3 *db, const char *sql, const char *instance, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, instance, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_keys_vm_runs(sqlite3 *db, const char *instance, struct error *err)
{
    return of_instance(db, "UPDATE keys SET instance = '' WHERE instance = ?1 AND instance <> ''",
                       instance, err);
}

int store_keys_vm_ends(sqlite3 *db, const char *instance, struct error *err)
{
    return of_instance(db, "DELETE FROM keys WHERE instance = ?1 AND instance <> ''", instance,
                       err);
}
