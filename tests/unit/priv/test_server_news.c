/* How the root half waits for what a VMM makes in its jail. */
#include "bench.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>

/* Counts this process's inotify descriptors and what they watch. */
static void count_news(unsigned *ret_instances, unsigned *ret_watches)
{
    char name[300], text[4096];
    DIR *dir = opendir("/proc/self/fd");
    *ret_instances = *ret_watches = 0;
    cr_assert_not_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, name, sizeof(name) - 1);
        name[n < 0 ? 0 : n] = '\0';
        if (strcmp(name, "anon_inode:inotify") != 0)
            continue;
        snprintf(name, sizeof(name), "/proc/self/fdinfo/%s", entry->d_name);
        cr_assert_gt(fs_read_at(AT_FDCWD, name, text, sizeof(text)), 0);
        ++*ret_instances;
        for (const char *at = text; (at = strstr(at, "inotify wd:")) != NULL; at++)
            ++*ret_watches;
    }
    closedir(dir);
}

/* An instance that was closed while a spawn waits would cost it two grace periods of the kernel; one
 * that is kept must not go on watching. */
Test(priv_server_news, waiting_for_a_socket_neither_closes_nor_keeps_a_watch, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    unsigned before = 0, after = 0, watches = 1;
    bench_init(&bench);
    bench_serve(&bench, false);
    count_news(&before, &watches);
    cr_expect_eq(before, PRIV_WORKERS);
    for (int i = 0; i < 3; i++) {
        bench_up(&bench, &vm);
        count_news(&after, &watches);
        cr_expect_eq(after, before);
        cr_expect_eq(watches, 0, "%u watches are left", watches);
        bench_kill(&bench, &vm, NULL);
    }
    bench_close(&bench);
}
