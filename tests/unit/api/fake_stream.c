/* The fake routes that stream. */
#include "tests/unit/api/fake.h"

struct reader {
    struct fake *fake;
    char first[64]; /* at most what any read has room for */
    size_t first_len, at;
};

static ssize_t read_words(void *context, char *out, size_t size, struct waker *waker)
{
    struct reader *reader = context;
    struct fake *fake = reader->fake;
    if (reader->first_len > 0) {
        size_t first_len = reader->first_len;
        memcpy(out, reader->first, first_len);
        reader->first_len = 0;
        return (ssize_t)first_len;
    }
    pthread_mutex_lock(&fake->lock);
    size_t left = fake->words_len - reader->at;
    size_t len = left < size ? left : size;
    memcpy(out, fake->words + reader->at, len);
    reader->at += len;
    ssize_t result = len > 0 ? (ssize_t)len : fake->silent ? API_STREAM_END : API_STREAM_WAIT;
    if (result == API_STREAM_WAIT)
        waker_add(&fake->waiting, waker);
    pthread_mutex_unlock(&fake->lock);
    return result;
}

static void close_words(void *context, struct waker *waker)
{
    struct reader *reader = context;
    struct fake *fake = reader->fake;
    pthread_mutex_lock(&fake->lock);
    waker_remove(waker);
    fake->closed++;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
    free(reader);
}

int fake_events(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory");
    reader->fake = (struct fake *)(void *)api;
    reader->first_len = (size_t)snprintf(reader->first, sizeof(reader->first), "last=%s\n\n",
                                         request->last_event_id);
    response->status = 200;
    response->content_type = "text/event-stream";
    response->stream = (struct api_stream){
        .read = read_words, .close = close_words, .context = reader, .events = true};
    return 0;
}

void fake_say(struct fake *fake, const char *words)
{
    pthread_mutex_lock(&fake->lock);
    size_t len = words != NULL ? strlen(words) : 0;
    if (len > 0 && fake->words_len + len <= sizeof(fake->words))
        memcpy(fake->words + fake->words_len, words, len);
    fake->words_len += len;
    fake->silent = fake->silent || words == NULL;
    waker_wake_all(&fake->waiting);
    pthread_mutex_unlock(&fake->lock);
}

char fake_file_byte(uint64_t at)
{
    return (char)('a' + at % 23);
}

static ssize_t read_file(void *context, char *out, size_t size, struct waker *waker)
{
    struct reader *reader = context;
    (void)waker;
    size_t len = 0;
    for (; len < size && reader->at < FAKE_FILE_SIZE; len++)
        out[len] = fake_file_byte(reader->at++);
    return len > 0 ? (ssize_t)len : API_STREAM_END;
}

int fake_file(struct api *api, const struct api_request *request, struct api_response *response,
              struct error *err)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    (void)request;
    if (reader == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory");
    reader->fake = (struct fake *)(void *)api;
    response->status = 200;
    response->content_type = "application/octet-stream";
    response->stream = (struct api_stream){.read = read_file,
                                           .close = close_words,
                                           .context = reader,
                                           .sized = true,
                                           .size = FAKE_FILE_SIZE};
    return 0;
}
