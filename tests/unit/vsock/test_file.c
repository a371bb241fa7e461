/* Files against the real agent's session code in a process of its own. */
#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct bench {
    struct support_agent agent;
    struct vsock_conn *conn;
    char dir[64], path[96]; /* a directory of the test's own, and a file in it */
};

static struct vsock_conn *connect_to(struct support_agent *agent)
{
    struct error err = {0};
    *agent = support_agent_start("");
    struct vsock_conn *conn = vsock_conn_new(TAKE_FD(agent->fd), &err);
    cr_assert(conn != NULL);
    return conn;
}

static struct bench bench_new(void)
{
    struct bench bench = {.dir = "/tmp/motte-file-XXXXXX"};
    cr_assert(mkdtemp(bench.dir) != NULL);
    snprintf(bench.path, sizeof bench.path, "%s/file", bench.dir);
    bench.conn = connect_to(&bench.agent);
    return bench;
}

static void bench_free(struct bench *bench)
{
    int alive = support_agent_stop(&bench->agent);
    vsock_conn_free(bench->conn);
    cr_assert_eq(fs_remove_tree(AT_FDCWD, bench->dir), 0);
    cr_assert_eq(alive, 0, "the agent died");
}

/* After an error that made the connection useless. */
static void reconnect(struct bench *bench)
{
    support_agent_stop(&bench->agent);
    vsock_conn_free(bench->conn);
    bench->conn = connect_to(&bench->agent);
}

/* How many names the directory has. */
static int names(const struct bench *bench)
{
    int count = -2;
    DIR *dir = opendir(bench->dir);
    cr_assert(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* ---- bytes that tell where they stand ---- */

struct bytes {
    int64_t at, size;
    int64_t fail_at; /* 0: never */
    int64_t wrong;   /* bytes that were not what they must be */
};

static uint8_t byte_at(int64_t offset)
{
    return (uint8_t)(offset % 251 ^ offset >> 16);
}

static ssize_t read_bytes(void *context, void *data, size_t size, struct error *err)
{
    struct bytes *bytes = context;
    if (bytes->fail_at > 0 && bytes->at >= bytes->fail_at)
        return error_set(err, ERR_DIGEST, 0, "the source fails");
    size_t left = (size_t)(bytes->size - bytes->at), len = left < size ? left : size;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)data)[i] = byte_at(bytes->at++);
    return (ssize_t)len;
}

static int write_bytes(void *context, const void *data, size_t len, struct error *err)
{
    struct bytes *bytes = context;
    if (bytes->fail_at > 0 && bytes->at >= bytes->fail_at)
        return error_set(err, ERR_DIGEST, 0, "the sink fails");
    for (size_t i = 0; i < len; i++)
        bytes->wrong += ((const uint8_t *)data)[i] != byte_at(bytes->at++);
    return 0;
}

static int put(struct bench *bench, struct vsock_file_put file, int64_t size, int64_t fail_at,
               struct error *err)
{
    struct bytes bytes = {.size = size, .fail_at = fail_at};
    const struct vsock_source source = {read_bytes, &bytes};
    return vsock_file_put(bench->conn, &file, &source, -1, err);
}

static void must_put(struct bench *bench, int64_t size)
{
    struct error err = {0};
    const struct vsock_file_put file = {.path = bench->path, .mode = 0640};
    cr_assert_eq(put(bench, file, size, 0, &err), 0, "%lld bytes: %s", (long long)size, err.msg);
}

static void expect_part(struct bench *bench, int64_t size, int64_t offset, int64_t length)
{
    struct error err = {0};
    struct vsock_file_info info;
    struct bytes bytes = {.at = offset};
    const struct vsock_sink sink = {write_bytes, &bytes};
    cr_assert_eq(vsock_file_open(bench->conn, bench->path, -1, &info, &err), 0, "%s", err.msg);
    cr_assert_eq(info.size, size);
    cr_assert_eq(info.mode, 0640);
    cr_assert_eq(vsock_file_read(bench->conn, offset, length, &sink, &err), 0, "%s", err.msg);
    cr_assert_eq(bytes.at, offset + length);
    cr_assert_eq(bytes.wrong, 0);
}

/* ---- tests ---- */

Test(vsock_file, R28_bytes_of_any_number_come_back_on_one_connection)
{
    static const int64_t sizes[] = {0, 1, 18 << 10, 32767, 32768, 32769, 128 << 10, 5 << 20};
    struct bench bench = bench_new();
    struct error err = {0};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        must_put(&bench, sizes[i]);
        expect_part(&bench, sizes[i], 0, sizes[i]);
        cr_assert_eq(names(&bench), 1);
    }
    expect_part(&bench, 5 << 20, 12345, 4 << 20);
    expect_part(&bench, 5 << 20, 5 << 20, 0);
    cr_assert_eq(vsock_file_remove(bench.conn, bench.path, false, -1, &err), 0, "%s", err.msg);
    cr_assert_eq(names(&bench), 0);
    bench_free(&bench);
}

Test(vsock_file, R31_a_file_that_does_not_come_whole_gets_no_name_and_replaces_nothing)
{
    struct bench bench = bench_new();
    must_put(&bench, 1000);
    struct error err = {0};
    const struct vsock_file_put file = {.path = bench.path, .mode = 0600};
    cr_assert_eq(put(&bench, file, 1 << 20, 1 << 19, &err), -1);
    cr_assert_eq(err.code, ERR_DIGEST);
    pid_t pid = bench.agent.pid;
    vsock_conn_free(bench.conn); /* what the caller of a failed put does */
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    cr_assert_eq(names(&bench), 1, "the half is still there");
    bench.conn = connect_to(&bench.agent);
    expect_part(&bench, 1000, 0, 1000);
    bench_free(&bench);
}

static void expect_refused(struct bench *bench, struct vsock_file_put file, enum error_code code,
                           const char *words)
{
    struct error err = {0};
    cr_assert_eq(put(bench, file, 4 << 20, 0, &err), -1, "%s", file.path);
    cr_assert_eq(err.code, code, "%s: %s", file.path, err.msg);
    cr_assert(strstr(err.msg, words) != NULL, "%s: %s", file.path, err.msg);
    reconnect(bench);
}

Test(vsock_file, R31_what_cannot_be_a_file_is_refused_while_it_still_comes)
{
    struct bench bench = bench_new();
    char deep[128], link[128], fifo[128];
    struct stat st;
    snprintf(deep, sizeof deep, "%s/a/b/c", bench.dir);
    snprintf(link, sizeof link, "%s/link", bench.dir);
    snprintf(fifo, sizeof fifo, "%s/fifo", bench.dir);
    cr_assert(mkfifo(fifo, 0600) == 0 && symlink("/etc/passwd", link) == 0);
    expect_refused(&bench, (struct vsock_file_put){.path = deep}, ERR_FILE_UNKNOWN, "No such file");
    expect_refused(&bench, (struct vsock_file_put){.path = bench.dir}, ERR_GUEST_REFUSED,
                   "not_a_file");
    expect_refused(&bench, (struct vsock_file_put){.path = fifo}, ERR_GUEST_REFUSED, "not_a_file");
    expect_refused(&bench, (struct vsock_file_put){.path = "/tmp/"}, ERR_GUEST_REFUSED, "name");
    expect_refused(&bench, (struct vsock_file_put){.path = "/tmp/.."}, ERR_GUEST_REFUSED, "name");
    expect_refused(&bench, (struct vsock_file_put){.path = "/dev/full/x"}, ERR_FILE_UNKNOWN,
                   "Not a directory");
    struct error err = {0};
    const struct vsock_file_put with = {.path = deep, .mode = 0444, .parents = true};
    cr_assert_eq(put(&bench, with, 10, 0, &err), 0, "%s", err.msg);
    cr_assert(stat(deep, &st) == 0 && st.st_size == 10 && (st.st_mode & 07777) == 0444);
    const struct vsock_file_put over = {.path = link, .mode = 0600};
    cr_assert_eq(put(&bench, over, 10, 0, &err), 0, "%s", err.msg);
    cr_assert(lstat(link, &st) == 0 && S_ISREG(st.st_mode), "the link is replaced, not followed");
    bench_free(&bench);
}

static enum error_code open_code(struct bench *bench, const char *path)
{
    struct error err = {0};
    struct vsock_file_info info;
    cr_assert_eq(vsock_file_open(bench->conn, path, -1, &info, &err), -1, "%s", path);
    return err.code;
}

Test(vsock_file, R31_what_cannot_be_read_or_removed_leaves_the_connection_as_it_was)
{
    struct bench bench = bench_new();
    struct error err = {0};
    char fifo[128];
    snprintf(fifo, sizeof fifo, "%s/fifo", bench.dir);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    cr_assert_eq(open_code(&bench, bench.path), ERR_FILE_UNKNOWN);
    cr_assert_eq(open_code(&bench, bench.dir), ERR_GUEST_REFUSED);
    cr_assert_eq(open_code(&bench, fifo), ERR_GUEST_REFUSED, "and it waits for no writer");
    cr_assert_eq(open_code(&bench, "/dev/zero"), ERR_GUEST_REFUSED);
    cr_assert_eq(vsock_file_remove(bench.conn, bench.path, false, -1, &err), -1);
    cr_assert_eq(err.code, ERR_FILE_UNKNOWN);
    err = (struct error){0};
    cr_assert_eq(vsock_file_remove(bench.conn, bench.dir, false, -1, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED, "it is not empty");
    must_put(&bench, 3);
    bench_free(&bench);
}

Test(vsock_file, R31_a_file_that_becomes_shorter_is_no_whole_file)
{
    struct bench bench = bench_new();
    struct error err = {0};
    struct vsock_file_info info;
    struct bytes bytes = {0};
    const struct vsock_sink sink = {write_bytes, &bytes};
    must_put(&bench, 100000);
    cr_assert_eq(vsock_file_open(bench.conn, bench.path, -1, &info, &err), 0);
    cr_assert_eq(truncate(bench.path, 50000), 0);
    cr_assert_eq(vsock_file_read(bench.conn, 0, info.size, &sink, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_CLOSED, "%s", err.msg);
    cr_assert_eq(bytes.at, 50000);
    bench_free(&bench);
}

Test(vsock_file, R31_a_full_file_system_is_told_and_leaves_nothing)
{
    struct bench bench = bench_new();
    struct error err = {0};
    char mount[160];
    snprintf(mount, sizeof mount, "mount -t tmpfs -o size=1m none %s", bench.dir);
    cr_assert_eq(system(mount), 0);
    const struct vsock_file_put file = {.path = bench.path, .mode = 0600};
    cr_assert_eq(put(&bench, file, 8 << 20, 0, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_FULL, "%s", err.msg);
    cr_assert_eq(names(&bench), 0);
    reconnect(&bench);
    snprintf(mount, sizeof mount, "umount %s", bench.dir);
    cr_assert_eq(system(mount), 0);
    bench_free(&bench);
}

Test(vsock_file, R31_an_agent_that_lies_about_a_file_is_found_out)
{
    static const char *const answers[] = {
        "{\"id\":1,\"ok\":true,\"size\":5,\"mode\":420}",
        "{\"id\":1,\"ok\":true,\"size\":-1,\"mode\":420,\"mtime_ms\":0}",
        "{\"id\":1,\"ok\":true,\"size\":5,\"mode\":65536,\"mtime_ms\":0}",
        "{\"id\":2,\"ok\":true,\"size\":5,\"mode\":420,\"mtime_ms\":0}",
        "{\"id\":1,\"ok\":true,\"size\":9007199254740992,\"mode\":420,\"mtime_ms\":0}",
        "{\"id\":1,\"ok\":true,\"size\":5,\"mode\":420,\"mtime_ms\":0,\"more\":1}",
        "{\"id\":1,\"ok\":false,\"error\":{\"code\":\"no_file\"}}",
    };
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        struct support_pair pair = support_pair_new(0);
        struct buf bytes = {.max = 1000};
        struct error err = {0};
        struct vsock_file_info info;
        support_text_frame(&bytes, WIRE_CONTROL, answers[i]);
        support_write(pair.guest, bytes.data, bytes.len);
        cr_assert_eq(vsock_file_open(pair.host, "/f", -1, &info, &err), -1, "%s", answers[i]);
        cr_assert_eq(err.code, ERR_GUEST_PROTOCOL, "%s: %s", answers[i], err.msg);
        vsock_conn_free(pair.host);
        close(pair.guest);
        buf_release(&bytes);
    }
}

/* ---- directories ---- */

struct listing {
    char names[700][VSOCK_NAME_MAX + 1];
    char target[VSOCK_LINK_MAX + 1]; /* of the last link */
    size_t count;
};

static int note(void *context, const struct vsock_entry *entry, struct error *err)
{
    struct listing *listing = context;
    (void)err;
    cr_assert_lt(listing->count, COUNT_OF(listing->names));
    memcpy(listing->names[listing->count++], entry->name, sizeof entry->name);
    if (entry->link)
        memcpy(listing->target, entry->target, sizeof entry->target);
    return 0;
}

/* All pages; how many there were. */
static int list(struct bench *bench, uint32_t limit, struct listing *ret)
{
    struct error err = {0};
    const struct vsock_lister lister = {note, ret};
    char next[VSOCK_NAME_HEX_SIZE] = "", after[VSOCK_NAME_HEX_SIZE];
    int pages = 0;
    do {
        memcpy(after, next, sizeof after);
        cr_assert_eq(
            vsock_file_list(bench->conn, bench->dir, after, limit, &lister, -1, next, &err), 0,
            "%s", err.msg);
        pages++;
    } while (next[0] != '\0');
    return pages;
}

static void make(const struct bench *bench, const char *name, const char *target)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", bench->dir, name);
    int fd = target != NULL ? symlink(target, path) : open(path, O_WRONLY | O_CREAT, 0600);
    cr_assert_geq(fd, 0, "%s", path);
    if (target == NULL)
        close(fd);
}

Test(vsock_file, R06_a_directory_of_any_names_is_listed_in_order_page_by_page)
{
    struct bench bench = bench_new();
    struct listing *all = calloc(1, sizeof *all), *paged = calloc(1, sizeof *paged);
    char name[32], longest[VSOCK_NAME_MAX + 1];
    cr_assert(all != NULL && paged != NULL);
    cr_assert_eq(list(&bench, 1, all), 1);
    cr_assert_eq(all->count, 0, "an empty directory has a page, an empty one");
    for (int i = 0; i < 600; i++) {
        snprintf(name, sizeof name, "%d-\xff\x01\"\n", i * 7919 % 600);
        make(&bench, name, NULL);
    }
    memset(longest, 'x', VSOCK_NAME_MAX);
    longest[VSOCK_NAME_MAX] = '\0';
    make(&bench, longest, "../\xfe/nowhere");
    cr_assert_eq(list(&bench, 500, all), 2);
    cr_assert_eq(list(&bench, 7, paged), 86);
    cr_assert_eq(all->count, 601);
    cr_assert_eq(paged->count, 601);
    for (size_t i = 0; i < all->count; i++) {
        cr_assert_str_eq(all->names[i], paged->names[i]);
        cr_assert(i == 0 || strcmp(all->names[i - 1], all->names[i]) < 0);
    }
    cr_assert_str_eq(all->names[600], longest);
    cr_assert_str_eq(all->target, "../\xfe/nowhere");
    free(all);
    free(paged);
    bench_free(&bench);
}

Test(vsock_file, R31_an_agent_that_lies_about_a_directory_is_found_out)
{
    static const char entry[] = "{\"name\":\"61\",\"type\":\"file\",\"size\":1,\"mode\":420,"
                                "\"mtime_ms\":0}";
    static const char *const lies[] = {
        "{\"name\":\"\",\"type\":\"file\",\"size\":1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"6100\",\"type\":\"file\",\"size\":1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"2f\",\"type\":\"file\",\"size\":1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"6g\",\"type\":\"file\",\"size\":1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"61\",\"type\":\"door\",\"size\":1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"61\",\"type\":\"file\",\"size\":-1,\"mode\":420,\"mtime_ms\":0}",
        "{\"name\":\"61\",\"type\":\"file\",\"size\":1,\"mode\":420,\"mtime_ms\":0,"
        "\"target\":\"61\"}",
        "{\"id\":1,\"ok\":true,\"next\":\"\"}",
        "{\"id\":1,\"ok\":true,\"next\":3}",
        "{\"id\":2,\"ok\":true}",
        entry, /* one more than was asked for */
    };
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct support_pair pair = support_pair_new(0);
        struct buf bytes = {.max = 1000};
        struct error err = {0};
        struct listing *listing = calloc(1, sizeof *listing);
        const struct vsock_lister lister = {note, listing};
        char next[VSOCK_NAME_HEX_SIZE];
        cr_assert(listing != NULL);
        support_text_frame(&bytes, WIRE_CONTROL, entry);
        support_text_frame(&bytes, WIRE_CONTROL, lies[i]);
        support_write(pair.guest, bytes.data, bytes.len);
        cr_assert_eq(vsock_file_list(pair.host, "/d", "", 1, &lister, -1, next, &err), -1, "%s",
                     lies[i]);
        cr_assert_eq(err.code, ERR_GUEST_PROTOCOL, "%s: %s", lies[i], err.msg);
        cr_assert_eq(listing->count, 1);
        vsock_conn_free(pair.host);
        close(pair.guest);
        buf_release(&bytes);
        free(listing);
    }
}

Test(vsock_file, R31_a_tree_is_removed_and_nothing_that_its_links_lead_to)
{
    struct bench bench = bench_new();
    struct error err = {0};
    char command[512], tree[96];
    snprintf(tree, sizeof tree, "%s/tree", bench.dir);
    snprintf(
        command, sizeof command,
        "cd %s && mkdir -p kept tree/a/b/c tree/.d && echo x > kept/x && ln -s ../kept tree/out "
        "&& ln -s ../../kept tree/a/out && mkfifo tree/a/b/f && echo y > tree/a/b/c/y",
        bench.dir);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(vsock_file_remove(bench.conn, tree, false, -1, &err), -1, "it is not empty");
    err = (struct error){0};
    cr_assert_eq(vsock_file_remove(bench.conn, "/", true, -1, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED, "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(vsock_file_remove(bench.conn, tree, true, -1, &err), 0, "%s", err.msg);
    cr_assert_eq(names(&bench), 1, "the other directory is there");
    snprintf(command, sizeof command, "test -s %s/kept/x && ln -s kept %s/link", bench.dir,
             bench.dir);
    cr_assert_eq(system(command), 0);
    snprintf(tree, sizeof tree, "%s/link", bench.dir);
    cr_assert_eq(vsock_file_remove(bench.conn, tree, true, -1, &err), 0, "%s", err.msg);
    cr_assert_eq(system(command), 0, "the link went, not what it leads to");
    bench_free(&bench);
}

Test(vsock_file, R31_what_is_mounted_in_a_tree_stays)
{
    struct bench bench = bench_new();
    struct error err = {0};
    char command[512];
    snprintf(command, sizeof command,
             "mkdir -p %s/t/m && mount -t tmpfs none %s/t/m && echo > %s/t/m/x", bench.dir,
             bench.dir, bench.dir);
    cr_assert_eq(system(command), 0);
    snprintf(bench.path, sizeof bench.path, "%s/t", bench.dir);
    cr_assert_eq(vsock_file_remove(bench.conn, bench.path, true, -1, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED, "%s", err.msg);
    snprintf(command, sizeof command, "test -e %s/t/m/x && umount %s/t/m", bench.dir, bench.dir);
    cr_assert_eq(system(command), 0);
    bench_free(&bench);
}
