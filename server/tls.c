/*
 * The certificate of the TLS listeners. Each session is given the newest when it begins and keeps it:
 * a replacement touches no connection that stands. Those of before stay until the end, since nobody
 * says when the last session that has one is over; certificates change once in weeks.
 */
#include "server/internal.h"

#include <gnutls/x509.h>

enum { PEM_MAX = 131072 };

struct certificate {
    struct certificate *older;                    /* owned */
    gnutls_certificate_credentials_t credentials; /* owned */
    uint8_t digest[HASH_SIZE];                    /* of the text it was made of */
};

struct server_tls {
    pthread_mutex_t lock;
    struct certificate *newest; /* owned; never NULL while it is used */
};

static void certificate_free(struct certificate *certificate)
{
    while (certificate != NULL) {
        struct certificate *older = certificate->older;
        if (certificate->credentials != NULL)
            gnutls_certificate_free_credentials(certificate->credentials);
        free(certificate);
        certificate = older;
    }
}

static void cleanup_certificate(struct certificate **certificate)
{
    certificate_free(*certificate);
}

static int load(struct certificate *certificate, char *text, size_t len, struct error *err)
{
    gnutls_datum_t pem = {.data = (unsigned char *)text, .size = (unsigned)len};
    hash_sha256(text, len, certificate->digest);
    int result = gnutls_certificate_allocate_credentials(&certificate->credentials);
    if (result == 0)
        result = gnutls_certificate_set_x509_key_mem2(certificate->credentials, &pem, &pem,
                                                      GNUTLS_X509_FMT_PEM, NULL, 0);
    if (result == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        return error_set(err, ERR_CONFIG, 0, "tls-key is not the key of tls-certificate");
    if (result < 0)
        return error_set(err, ERR_CONFIG, 0,
                         "tls-certificate and tls-key are no PEM of a certificate, its chain and "
                         "its key without a passphrase: %s",
                         gnutls_strerror(result));
    return 0;
}

static struct certificate *read_certificate(int fd, struct error *err)
{
    cleanup_free char *text = malloc(PEM_MAX);
    cleanup(cleanup_certificate) struct certificate *certificate = calloc(1, sizeof(*certificate));
    ssize_t len = text != NULL ? pread(fd, text, PEM_MAX, 0) : -1;
    int result = -1;
    if (certificate == NULL || len < 0 || len == PEM_MAX)
        error_set(err, ERR_CONFIG, 0, "the certificate cannot be read, or takes %d bytes", PEM_MAX);
    else
        result = load(certificate, text, (size_t)len, err);
    if (len > 0)
        explicit_bzero(text, (size_t)len);
    return result == 0 ? TAKE_PTR(certificate) : NULL;
}

int server_tls_read(int fd, struct server_tls **ret, struct error *err)
{
    struct certificate *first = read_certificate(fd, err);
    if (first == NULL)
        return -1;
    struct server_tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL) {
        certificate_free(first);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the certificate");
    }
    tls->newest = first;
    pthread_mutex_init(&tls->lock, NULL);
    *ret = tls;
    return 0;
}

void server_tls_take(struct server_tls *tls, struct server_tls *fresh)
{
    pthread_mutex_lock(&tls->lock);
    if (memcmp(tls->newest->digest, fresh->newest->digest, HASH_SIZE) != 0) {
        fresh->newest->older = tls->newest;
        tls->newest = TAKE_PTR(fresh->newest);
    }
    pthread_mutex_unlock(&tls->lock);
    server_tls_free(fresh);
}

void server_tls_free(struct server_tls *tls)
{
    if (tls == NULL)
        return;
    certificate_free(tls->newest);
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}

void server_tls_begin(struct server_tls *tls, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (tls == NULL || info == NULL)
        return; /* without a certificate its handshake fails */
    pthread_mutex_lock(&tls->lock);
    gnutls_credentials_set(info->tls_session, GNUTLS_CRD_CERTIFICATE, tls->newest->credentials);
    pthread_mutex_unlock(&tls->lock);
}

int server_tls_none(gnutls_session_t session, const gnutls_datum_t *issuers, int issuer_count,
                    const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                    gnutls_pcert_st **ret, unsigned *ret_count, gnutls_privkey_t *ret_key)
{
    (void)session;
    (void)issuers;
    (void)issuer_count;
    (void)algorithms;
    (void)algorithm_count;
    (void)ret;
    (void)ret_count;
    (void)ret_key;
    return -1;
}
