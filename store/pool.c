/* The reading connections. There are few and each use is short, so a caller waits for one. */
#include "store/internal.h"

sqlite3 *store_reader_take(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    while (store->ready == 0)
        pthread_cond_wait(&store->idle, &store->lock);
    sqlite3 *db = store->readers[--store->ready];
    pthread_mutex_unlock(&store->lock);
    return db;
}

void store_reader_give(struct store *store, sqlite3 *db)
{
    pthread_mutex_lock(&store->lock);
    store->readers[store->ready++] = db;
    pthread_cond_signal(&store->idle);
    pthread_mutex_unlock(&store->lock);
}
