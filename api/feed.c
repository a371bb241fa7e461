/*
 * Who watches events. Reading the inventory may block, and connections' threads must not: one thread
 * reads for all who watch, a page for each in turn, and wakes them. It is woken by what writes events,
 * and while nobody watches it sleeps.
 *
 * Locks: the inventory's list of listeners, then the feed's, then the server's.
 */
#include "api/internal.h"

#include <errno.h>
#include <pthread.h>

enum { PAGE_MAX = 64 * 1024 /* bytes; an event has less than one KiB */ };

struct api_watcher {
    struct api_watcher *next, *previous;
    struct api_feed *feed;
    struct api_events_query query;
    struct waker *waiting;
    bool hungry; /* has sent all it got, */
    bool idle;   /* which was all there is */
    bool fed;    /* the thread reads for it, and has `events` and `text` */
    bool closed; /* while it did so: it frees it */
    bool broken;
    bool ended;
    int64_t after;
    size_t sent;
    struct buf text; /* owned */
};

struct api_feed {
    struct store *store;  /* borrowed */
    pthread_mutex_t lock; /* guards all below, and watchers but for what is being fed */
    pthread_cond_t asked;
    struct api_watcher *watchers;
    struct waker waker; /* in the inventory's list */
    bool news, over;
    struct store_events page; /* the thread's alone */
    pthread_t thread;
};

/* ---- text ---- */

static int put_gap(struct buf *text, int64_t first, const char *id)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_number(json, "first_available", (double)first) < 0 ||
        json_add_string(json, "id", id) < 0)
        return -1;
    cleanup_free char *data = json_print(json);
    return data == NULL
               ? -1
               : buf_printf(text, "event: gap\nid: %lld\ndata: %s\n\n", (long long)first - 1, data);
}

static int put_event(struct buf *text, const struct store_audit *entry)
{
    cleanup_json cJSON *json = api_audit_json(entry);
    cleanup_free char *data = json != NULL ? json_print(json) : NULL;
    if (data == NULL)
        return -1;
    return buf_printf(text, "event: %s\nid: %lld\ndata: %s\n\n", store_audit_kind_name(entry->kind),
                      (long long)entry->seq, data);
}

static int put_page(struct buf *text, const struct store_events *page)
{
    if (page->gap > 0 && put_gap(text, page->gap + 1, NULL) < 0)
        return -1;
    for (size_t i = 0; i < page->count; i++)
        if ((page->torn[i] && put_gap(text, page->entries[i].seq, page->entries[i].id) < 0) ||
            (page->wanted[i] && put_event(text, &page->entries[i]) < 0))
            return -1;
    return 0;
}

/* ---- the thread ---- */

static void remove_watcher(struct api_watcher *watcher)
{
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        watcher->feed->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    buf_release(&watcher->text);
    free(watcher);
}

static int read_page(struct api_feed *feed, struct api_watcher *watcher)
{
    const struct api_events_query *query = &watcher->query;
    const struct store_events_filter filter = {.owner = query->owner[0] ? query->owner : NULL,
                                               .id = query->id[0] ? query->id : NULL,
                                               .kinds = query->kinds};
    struct error err = {0};
    feed->page.after = watcher->after;
    feed->page.told = query->told;
    watcher->sent = watcher->text.len = 0;
    if (store_events_read(feed->store, &filter, &feed->page, &err) < 0 ||
        put_page(&watcher->text, &feed->page) < 0)
        return -1;
    watcher->after = feed->page.after;
    return 0;
}

/* With the lock held, which is given up meanwhile. */
static void feed_one(struct api_feed *feed, struct api_watcher *watcher)
{
    watcher->fed = true;
    pthread_mutex_unlock(&feed->lock);
    int result = read_page(feed, watcher);
    pthread_mutex_lock(&feed->lock);
    watcher->fed = false;
    if (watcher->closed) {
        remove_watcher(watcher);
        return;
    }
    watcher->broken = result < 0;
    watcher->hungry = watcher->text.len == 0 && !watcher->broken;
    watcher->idle = watcher->hungry && !feed->page.more;
    watcher->ended = watcher->idle && watcher->query.once;
    if (!watcher->hungry || watcher->ended)
        waker_wake_all(&watcher->waiting);
}

/* With the lock held, which is given up meanwhile: what is written from now on is news again. */
static void take_news(struct api_feed *feed)
{
    feed->news = false;
    pthread_mutex_unlock(&feed->lock);
    store_events_listen(feed->store, &feed->waker);
    pthread_mutex_lock(&feed->lock);
    for (struct api_watcher *watcher = feed->watchers; watcher != NULL; watcher = watcher->next)
        watcher->idle = false;
}

static struct api_watcher *find_hungry(struct api_feed *feed)
{
    struct api_watcher *watcher = feed->watchers;
    while (watcher != NULL && (!watcher->hungry || watcher->idle))
        watcher = watcher->next;
    return watcher;
}

/* Who was fed goes to the end: one that reads far back holds up nobody. */
static void move_last(struct api_feed *feed, struct api_watcher *watcher)
{
    struct api_watcher *last = watcher;
    while (last->next != NULL)
        last = last->next;
    if (last == watcher)
        return;
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        feed->watchers = watcher->next;
    watcher->next->previous = watcher->previous;
    watcher->previous = last;
    watcher->next = NULL;
    last->next = watcher;
}

static void *run(void *context)
{
    struct api_feed *feed = context;
    pthread_mutex_lock(&feed->lock);
    while (!feed->over) {
        if (feed->news && feed->watchers != NULL)
            take_news(feed);
        struct api_watcher *watcher = find_hungry(feed);
        if (watcher != NULL) {
            move_last(feed, watcher);
            feed_one(feed, watcher);
        } else if (!feed->over && !(feed->news && feed->watchers != NULL)) {
            pthread_cond_wait(&feed->asked, &feed->lock);
        }
    }
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

static void wake(struct waker *waker)
{
    struct api_feed *feed = (void *)((char *)waker - offsetof(struct api_feed, waker));
    pthread_mutex_lock(&feed->lock);
    feed->news = true;
    pthread_cond_signal(&feed->asked);
    pthread_mutex_unlock(&feed->lock);
}

int api_feed_start(struct store *store, struct api_feed **ret, struct error *err)
{
    struct api_feed *feed = calloc(1, sizeof(*feed));
    if (feed == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for events");
    feed->store = store;
    feed->news = true;
    feed->waker.wake = wake;
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->asked, NULL);
    int result = pthread_create(&feed->thread, NULL, run, feed);
    if (result != 0) {
        pthread_cond_destroy(&feed->asked);
        pthread_mutex_destroy(&feed->lock);
        free(feed);
        return error_set(err, ERR_SYSTEM, result, "cannot start the thread for events");
    }
    *ret = feed;
    return 0;
}

void api_feed_stop(struct api_feed *feed)
{
    if (feed == NULL)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->over = true;
    pthread_cond_signal(&feed->asked);
    pthread_mutex_unlock(&feed->lock);
    pthread_join(feed->thread, NULL);
    store_events_unlisten(feed->store, &feed->waker);
    pthread_cond_destroy(&feed->asked);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
}

/* ---- streams ---- */

static ssize_t read_events(void *context, char *out, size_t size, struct waker *waker)
{
    struct api_watcher *watcher = context;
    struct api_feed *feed = watcher->feed;
    ssize_t len = API_STREAM_WAIT;
    pthread_mutex_lock(&feed->lock);
    if (watcher->broken) {
        len = API_STREAM_BROKEN;
    } else if (watcher->ended) {
        len = API_STREAM_END;
    } else if (watcher->hungry) {
        waker_add(&watcher->waiting, waker);
    } else {
        size_t left = watcher->text.len - watcher->sent;
        len = (ssize_t)(left < size ? left : size);
        memcpy(out, watcher->text.data + watcher->sent, (size_t)len);
        watcher->sent += (size_t)len;
        watcher->hungry = watcher->sent == watcher->text.len;
        if (watcher->hungry)
            pthread_cond_signal(&feed->asked);
    }
    pthread_mutex_unlock(&feed->lock);
    return len;
}

static void close_events(void *context, struct waker *waker)
{
    struct api_watcher *watcher = context;
    struct api_feed *feed = watcher->feed;
    pthread_mutex_lock(&feed->lock);
    waker_remove(waker);
    watcher->closed = true;
    if (!watcher->fed)
        remove_watcher(watcher);
    pthread_mutex_unlock(&feed->lock);
}

int api_feed_watch(struct api_feed *feed, const struct api_events_query *query,
                   struct api_stream *ret, struct error *err)
{
    struct api_watcher *watcher = calloc(1, sizeof(*watcher));
    if (watcher == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a stream");
    *watcher = (struct api_watcher){.feed = feed, .query = *query, .text = {.max = PAGE_MAX}};
    watcher->after = query->after;
    int result = 0;
    if (query->fresh)
        result = buf_printf(&watcher->text, "event: start\nid: %lld\ndata: {\"after\":%lld}\n\n",
                            (long long)query->after, (long long)query->after);
    else if (query->unknown)
        result = put_gap(&watcher->text, query->after + 1, NULL);
    if (result < 0) {
        buf_release(&watcher->text);
        free(watcher);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a stream");
    }
    watcher->hungry = watcher->text.len == 0;
    pthread_mutex_lock(&feed->lock);
    watcher->next = feed->watchers;
    if (watcher->next != NULL)
        watcher->next->previous = watcher;
    feed->watchers = watcher;
    pthread_cond_signal(&feed->asked);
    pthread_mutex_unlock(&feed->lock);
    *ret = (struct api_stream){
        .read = read_events, .close = close_events, .context = watcher, .events = true};
    return 0;
}
