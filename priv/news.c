/* What tells that something was made in a jail. To close an inotify instance is to wait until the
 * kernel is sure that nobody looks at its marks: ten to twenty milliseconds, twice a spawn. So there
 * is one for each worker as long as the server lives; a watch is taken off without waiting. */
#include "priv/internal.h"

#include <errno.h>
#include <sys/inotify.h>

void priv_news_init(struct priv_server *server)
{
    for (size_t i = 0; i < COUNT_OF(server->news); i++)
        server->news[i] = (struct priv_news_fd){.fd = -1};
}

int priv_news_open(struct priv_server *server, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(server->news); i++) {
        server->news[i].fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (server->news[i].fd < 0)
            return error_set(err, ERR_SYSTEM, errno,
                             "preparing to watch jails; raise fs.inotify.max_user_instances");
    }
    return 0;
}

void priv_news_close(struct priv_server *server)
{
    for (size_t i = 0; i < COUNT_OF(server->news); i++)
        cleanup_close_func(&server->news[i].fd);
}

static struct priv_news_fd *take(struct priv_server *server)
{
    struct priv_news_fd *free_one = NULL;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < COUNT_OF(server->news) && free_one == NULL; i++)
        if (!server->news[i].taken)
            free_one = &server->news[i];
    if (free_one != NULL)
        free_one->taken = true;
    pthread_mutex_unlock(&server->lock);
    return free_one;
}

static void give(struct priv_server *server, struct priv_news_fd *news)
{
    pthread_mutex_lock(&server->lock);
    news->taken = false;
    pthread_mutex_unlock(&server->lock);
}

int priv_news_begin(struct priv_server *server, int directory, struct priv_news *ret,
                    struct error *err)
{
    char path[32];
    struct priv_news_fd *news = take(server);
    if (news == NULL)
        return error_set(err, ERR_INTERNAL, 0, "more jails are watched than there are workers");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", directory);
    int watch = inotify_add_watch(news->fd, path, IN_CREATE);
    if (watch < 0) {
        error_set(err, ERR_HYPERVISOR, errno, "watching the jail");
        give(server, news);
        return -1;
    }
    *ret = (struct priv_news){.server = server, .fd = news->fd, .from = news, .watch = watch};
    return 0;
}

void priv_news_end(struct priv_news *news)
{
    char events[4096];
    if (news->from == NULL)
        return;
    inotify_rm_watch(news->fd, news->watch);
    while (read(news->fd, events, sizeof(events)) > 0) /* they would wake the next who waits */
        continue;
    give(news->server, news->from);
    news->from = NULL;
}
