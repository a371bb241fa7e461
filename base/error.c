/* Errors by value: set once, wrapped with context on the way up. */
#include "base/base.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>

int error_set(struct error *err, enum error_code code, int sys, const char *fmt, ...)
{
    assert(err->code == ERR_NONE);
    err->code = code;
    err->sys = sys;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    if (sys != 0) {
        size_t len = strlen(err->msg);
        char text[64];
        snprintf(err->msg + len, sizeof(err->msg) - len, ": %s",
                 strerror_r(sys, text, sizeof(text)));
    }
    return -1;
}

int error_wrap(struct error *err, const char *fmt, ...)
{
    assert(err->code != ERR_NONE);
    char context[ERROR_MESSAGE_MAX], joined[2 * ERROR_MESSAGE_MAX + 2];
    va_list args;
    va_start(args, fmt);
    vsnprintf(context, sizeof(context), fmt, args);
    va_end(args);
    snprintf(joined, sizeof(joined), "%s: %s", context, err->msg);
    joined[sizeof(err->msg) - 1] = '\0';
    memcpy(err->msg, joined, sizeof(err->msg));
    return -1;
}

bool error_is_shortage(const struct error *err)
{
    static const int lacking[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOLCK, ENOSPC, EDQUOT};
    for (size_t i = 0; i < COUNT_OF(lacking); i++)
        if (err->sys == lacking[i])
            return true;
    return err->code == ERR_NO_MEMORY || err->code == ERR_STORE_FULL;
}

const char *error_code_name(enum error_code code)
{
    static const char *const names[ERR_COUNT] = {[ERR_NONE] = "none",
#define X(name, text) [ERR_##name] = (text),
                                                 ERROR_CODES(X)
#undef X
    };
    return (unsigned)code < ERR_COUNT ? names[code] : "internal";
}
