/* The functions behind the cleanup_* attributes, and the growing buffer. All keep errno. */
#include "base/base.h"

#include <errno.h>
#include <stdarg.h>

void cleanup_free_func(void *pointer_to_pointer)
{
    int saved = errno;
    free(*(void **)pointer_to_pointer);
    errno = saved;
}

void cleanup_close_func(const int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

void cleanup_file_func(FILE **file)
{
    int saved = errno;
    if (*file != NULL)
        fclose(*file);
    errno = saved;
}

static int grow(struct buf *buf, size_t more)
{
    if (more > buf->max - buf->len)
        return -1;
    size_t need = buf->len + more + 1;
    if (need <= buf->cap)
        return 0;
    size_t cap = buf->cap == 0 ? 256 : buf->cap;
    while (cap < need)
        cap *= 2;
    char *data = realloc(buf->data, cap);
    if (data == NULL)
        return -1;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

int buf_append(struct buf *buf, const void *data, size_t len)
{
    if (grow(buf, len) < 0)
        return -1;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return 0;
}

int buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    int result = -1;
    if (len >= 0 && grow(buf, (size_t)len) == 0) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, again);
        buf->len += (size_t)len;
        result = 0;
    }
    va_end(again);
    return result;
}

void buf_release(struct buf *buf)
{
    int saved = errno;
    free(buf->data);
    *buf = (struct buf){.max = buf->max};
    errno = saved;
}
