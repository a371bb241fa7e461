/* Files that only root may read, and of which the front gets a copy in memory: tokens, and what TLS
 * needs. */
#include "motted/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SECRET_MAX = TOKENS_FILE_MAX };

/* `others`: what nobody but root may with it. */
static int open_file(const char *path, mode_t others, struct error *err)
{
    struct stat st;
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_CONFIG, errno, "opening %s", path);
    if (S_ISREG(st.st_mode) && st.st_uid == 0 && (st.st_mode & others) == 0)
        return TAKE_FD(fd);
    return others == 077
               ? error_set(err, ERR_CONFIG, 0, "%s holds secrets: chown root:root and chmod 600 it",
                           path)
               : error_set(err, ERR_CONFIG, 0,
                           "%s must be a file of root's that nobody else can write: chown "
                           "root:root and chmod go-w it",
                           path);
}

static int append(int memory, const char *path, mode_t others, struct error *err)
{
    cleanup_free char *text = malloc(SECRET_MAX);
    cleanup_close int fd = open_file(path, others, err);
    if (fd < 0)
        return -1;
    ssize_t len = text != NULL ? read(fd, text, SECRET_MAX) : -1;
    bool written = len >= 0 && len < SECRET_MAX && fs_write_all(memory, text, (size_t)len) == 0;
    if (len > 0)
        explicit_bzero(text, (size_t)len);
    return written
               ? 0
               : error_set(err, ERR_CONFIG, len < SECRET_MAX ? errno : EFBIG, "reading %s", path);
}

/* Above the front's channel. */
static int new_memory(const char *name, struct error *err)
{
    cleanup_close int memory = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int high = memory < 0 ? -1 : fcntl(memory, F_DUPFD_CLOEXEC, MOTTED_FD_MIN);
    return high >= 0 ? high : error_set(err, ERR_SYSTEM, errno, "making room for %s", name);
}

static int seal(int memory, struct error *err)
{
    if (fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        return 0;
    return error_set(err, ERR_SYSTEM, errno, "sealing what the front is handed");
}

static int read_tokens(const struct motted_config *config, int *ret, struct error *err)
{
    if (config->token_file[0] == '\0')
        return 0;
    *ret = new_memory("motte-tokens", err);
    return *ret < 0 || append(*ret, config->token_file, 077, err) < 0 ? -1 : seal(*ret, err);
}

/* One text: the certificate, its chain, a line's end whatever they end with, the key. */
static int read_tls(const struct motted_config *config, int *ret, struct error *err)
{
    if (config->tls_certificate[0] == '\0')
        return 0;
    *ret = new_memory("motte-tls", err);
    if (*ret < 0 || append(*ret, config->tls_certificate, 022, err) < 0)
        return -1;
    if (fs_write_all(*ret, "\n", 1) < 0)
        return error_set(err, ERR_SYSTEM, errno, "copying %s", config->tls_certificate);
    return append(*ret, config->tls_key, 077, err) < 0 ? -1 : seal(*ret, err);
}

int motted_secrets_read(const struct motted_config *config, struct motted_secrets *ret,
                        struct error *err)
{
    if (read_tokens(config, &ret->tokens, err) == 0 && read_tls(config, &ret->tls, err) == 0)
        return 0;
    motted_secrets_release(ret);
    return -1;
}

void motted_secrets_release(struct motted_secrets *secrets)
{
    cleanup_close_func(&secrets->tokens);
    cleanup_close_func(&secrets->tls);
    *secrets = (struct motted_secrets)MOTTED_SECRETS_INIT;
}
