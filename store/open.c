/* Opening: make the file if there is none, look before touching it, then readers beside the writer.
 */
#include "store/internal.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>

/* mknod makes the file without opening it: a close(2) outside SQLite would drop its POSIX locks. */
static int make_file(const char *path, struct error *err)
{
    struct stat st;
    if (mknod(path, S_IFREG | 0600, 0) < 0 && errno != EEXIST)
        return error_set(err, errno == ENOSPC ? ERR_STORE_FULL : ERR_STORE, errno,
                         "%.120s cannot be made", path);
    if (lstat(path, &st) < 0)
        return error_set(err, ERR_STORE, errno, "%.120s", path);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0077) != 0)
        return error_set(err, ERR_STORE, 0,
                         "%.120s must be a regular file that belongs to uid %u with mode 0600",
                         path, (unsigned)geteuid());
    return 0;
}

static int resolve(const char *dir, char *out, size_t size, struct error *err)
{
    if (dir[0] != '/')
        return error_set(err, ERR_STORE, 0, "`%.120s` must be an absolute path", dir);
    /* SQLite refuses links in the whole path; one above the state directory is the admin's choice.
     */
    cleanup_free char *real = realpath(dir, NULL);
    if (real == NULL)
        return error_set(err, ERR_STORE, errno, "the state directory %.120s", dir);
    if (snprintf(out, size, "%s/motte.db", real) >= (int)size)
        return error_set(err, ERR_STORE, ENAMETOOLONG, "the state directory");
    return make_file(out, err);
}

static int use_wal(sqlite3 *db, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "PRAGMA journal_mode = WAL", &statement, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    const char *mode = row == 1 ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    if (mode == NULL || strcmp(mode, "wal") != 0)
        return error_set(err, ERR_STORE, 0,
                         "the inventory needs SQLite's WAL, which the file system of the state "
                         "directory does not carry: use a local disk");
    return 0;
}

static int open_writer(struct store *store, const char *path, struct error *err)
{
    if (store_connect(path, &store->writer, err) < 0)
        return -1;
    if (store_check(store->writer, err) < 0 || use_wal(store->writer, err) < 0)
        return -1;
    char limit[64];
    snprintf(limit, sizeof(limit), "PRAGMA journal_size_limit = %d", STORE_WAL_LIMIT);
    if (store_exec(store->writer, "PRAGMA synchronous = NORMAL", err) < 0 ||
        store_exec(store->writer, limit, err) < 0 ||
        store_copy_before_migration(store->writer, path, err) < 0 ||
        store_migrate(store->writer, err) < 0)
        return -1;
    store_event_notice(store);
    sqlite3_db_config(store->writer, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return 0;
}

static int open_reader(struct store *store, const char *path, struct error *err)
{
    cleanup_sqlite sqlite3 *db = NULL;
    if (store_connect(path, &db, err) < 0)
        return -1;
    /* The read opens the log: a connection that is first needed when descriptors are short has its
     * own already. */
    if (store_exec(db, "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0", err) < 0 ||
        store_exec(db, "SELECT name FROM sqlite_master", err) < 0)
        return -1;
    store->readers[store->ready++] = TAKE_PTR(db);
    return 0;
}

static void cleanup_store(struct store **store)
{
    store_close(*store);
}

int store_open(const char *dir, struct store **ret, struct error *err)
{
    char path[PATH_MAX];
    cleanup(cleanup_store) struct store *store = calloc(1, sizeof(*store));
    if (store == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while opening the inventory");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->writing, NULL);
    pthread_cond_init(&store->written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&store->watching, NULL);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->idle, NULL);
    store->ballast = -1;
    if (resolve(dir, path, sizeof(path), err) < 0 || open_writer(store, path, err) < 0 ||
        store_ballast_open(store, dir, err) < 0)
        return -1;
    for (int i = 0; i < STORE_READERS; i++)
        if (open_reader(store, path, err) < 0)
            return -1;
    *ret = TAKE_PTR(store);
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    int saved = errno;
    for (unsigned i = 0; i < store->ready; i++)
        store_cleanup_sqlite(&store->readers[i]);
    store_cleanup_sqlite(&store->writer); /* last: it moves the log into the file */
    if (store->ballast >= 0)
        close(store->ballast);
    pthread_cond_destroy(&store->idle);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->watching);
    pthread_cond_destroy(&store->written);
    pthread_mutex_destroy(&store->writing);
    free(store);
    errno = saved;
}
