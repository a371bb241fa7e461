/* Paths of requests. */
#include "cli/internal.h"
#include <stdarg.h>

enum { PATH_LIMIT = 16384 };

static int encode(struct buf *out, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text != '\0'; text++) {
        int failed = strchr(plain, *text) != NULL ? buf_append(out, text, 1)
                                                  : buf_printf(out, "%%%02X", (unsigned char)*text);
        if (failed != 0)
            return -1;
    }
    return 0;
}

char *cli_path(const char *fmt, ...)
{
    struct buf out = {.max = PATH_LIMIT};
    va_list words;
    va_start(words, fmt);
    int failed = 0;
    for (; *fmt != '\0' && failed == 0; fmt++) {
        if (fmt[0] == '%' && fmt[1] == 's') {
            failed = encode(&out, va_arg(words, const char *));
            fmt++;
        } else {
            failed = buf_append(&out, fmt, 1);
        }
    }
    va_end(words);
    if (failed != 0)
        buf_release(&out);
    return out.data;
}
