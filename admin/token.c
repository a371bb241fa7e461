/* motte-admin token: a line for the tokens file of a TCP listener. */
#include "admin/internal.h"

#include <errno.h>
#include <sys/random.h>

int admin_token(const struct admin *admin, struct error *err)
{
    enum { BYTES = 32 };
    uint8_t secret[BYTES];
    char hex[2 * BYTES + 1];
    if (admin->operand == NULL || !id_name_valid(admin->operand))
        return error_set(err, ERR_CONFIG, 0,
                         "`token` needs the NAME of a caller: 1 to %d of [a-z0-9._-]; `admin` may "
                         "see every VM",
                         ID_NAME_MAX);
    if (getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
        return error_set(err, ERR_SYSTEM, errno, "Cannot get random bytes");
    hash_to_hex(secret, sizeof(secret), hex);
    printf("%s = %s\n", admin->operand, hex);
    return 0;
}
