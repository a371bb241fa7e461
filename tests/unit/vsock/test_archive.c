/* Directories as archives, against the real agent's session code; GNU tar is the judge of what it packs
 * and the maker of what it unpacks. */
#include "guest/tar.h"
#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

struct bench {
    struct support_agent agent;
    struct vsock_conn *conn;
    char dir[64]; /* of the test's own; what it works with lies in it */
};

static void connect_agent(struct bench *bench)
{
    struct error err = {0};
    bench->agent = support_agent_start("");
    bench->conn = vsock_conn_new(TAKE_FD(bench->agent.fd), &err);
    cr_assert(bench->conn != NULL);
}

static struct bench bench_new(void)
{
    struct bench bench = {.dir = "/tmp/motte-archive-XXXXXX"};
    cr_assert(mkdtemp(bench.dir) != NULL);
    cr_assert_eq(chdir(bench.dir), 0);
    connect_agent(&bench);
    return bench;
}

static void bench_free(struct bench *bench)
{
    int alive = support_agent_stop(&bench->agent);
    vsock_conn_free(bench->conn);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(fs_remove_tree(AT_FDCWD, bench->dir), 0);
    cr_assert_eq(alive, 0, "the agent died");
}

static void run(const char *command)
{
    cr_assert_eq(system(command), 0, "%s", command);
}

/* ---- through the agent ---- */

static int write_file(void *context, const void *data, size_t len, struct error *err)
{
    (void)err;
    cr_assert_eq(fwrite(data, 1, len, context), len);
    return 0;
}

static int pack(struct bench *bench, const char *name, const char *archive, struct error *err)
{
    char path[128];
    uint64_t id;
    FILE *file = fopen(archive, "we");
    const struct vsock_sink sink = {write_file, file};
    snprintf(path, sizeof path, "%s/%s", bench->dir, name);
    int result = vsock_archive_open(bench->conn, path, -1, &id, err);
    if (result == 0)
        result = vsock_archive_read(bench->conn, id, &sink, err);
    cr_assert_eq(fclose(file), 0);
    return result;
}

/* Random pieces: where a frame ends has nothing to do with a block's end. */
struct pieces {
    FILE *file;
    uint64_t random;
};

static ssize_t read_file(void *context, void *data, size_t size, struct error *err)
{
    struct pieces *pieces = context;
    uint32_t most = support_random(&pieces->random, 4) == 0 ? 3 : (uint32_t)size;
    (void)err;
    return (ssize_t)fread(data, 1, 1 + support_random(&pieces->random, most), pieces->file);
}

static int unpack(struct bench *bench, const char *archive, const char *name,
                  struct vsock_unpacked *ret, struct error *err)
{
    char path[128];
    struct pieces pieces = {fopen(archive, "re"), 1};
    const struct vsock_source source = {read_file, &pieces};
    cr_assert(pieces.file != NULL);
    snprintf(path, sizeof path, "%s/%s", bench->dir, name);
    int result = vsock_archive_put(bench->conn, path, false, &source, -1, ret, err);
    fclose(pieces.file);
    return result;
}

/* ---- random trees ---- */

/* Any bytes but NUL and slash, of any length that a name may have. */
static void random_name(uint64_t *random, unsigned number, char out[static 256])
{
    static const size_t lengths[] = {1, 8, 99, 100, 101, 150, 240};
    size_t len = lengths[support_random(random, COUNT_OF(lengths))];
    for (size_t i = 0; i < len; i++) {
        out[i] = (char)(support_random(random, 2) ? 'a' + support_random(random, 26)
                                                  : 1 + support_random(random, 255));
        out[i] = out[i] == '/' ? '-' : out[i];
    }
    snprintf(out + len, 256 - len, "-%u", number);
}

static void make_file(uint64_t *random, int dir, const char *name)
{
    static const uint32_t sizes[] = {0, 1, 511, 512, 513, 61440, 70001};
    static const mode_t modes[] = {0644, 0600, 0755, 04711};
    uint32_t size = sizes[support_random(random, COUNT_OF(sizes))];
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(fd, 0);
    for (uint32_t i = 0; i < size; i += sizeof *random) {
        support_random(random, 2);
        size_t len = size - i < sizeof *random ? size - i : sizeof *random;
        cr_assert_eq(write(fd, random, len), (ssize_t)len);
    }
    cr_assert_eq(fchmod(fd, modes[support_random(random, COUNT_OF(modes))]), 0);
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT},
                                     {.tv_sec = (time_t)support_random(random, UINT32_MAX) - 1000}};
    cr_assert_eq(futimens(fd, times), 0);
    close(fd);
}

static void make_tree(uint64_t *random, int dir, unsigned depth)
{
    char name[256], target[256];
    for (unsigned i = support_random(random, 6); i-- > 0;) {
        random_name(random, i, name);
        unsigned kind = support_random(random, 5);
        if (kind == 0) {
            random_name(random, i, target);
            cr_assert_eq(symlinkat(target, dir, name), 0);
        } else if (kind <= 2 && depth > 0) {
            cr_assert_eq(mkdirat(dir, name, 0750), 0);
            int below = openat(dir, name, O_RDONLY | O_DIRECTORY);
            make_tree(random, below, depth - 1);
            close(below);
        } else {
            make_file(random, dir, name);
        }
    }
}

#define LIST                                                                                       \
    "find . -mindepth 1 \\( -type f -printf '%p %y %m %s %Ts\\0' -o -type d -printf '%p %y "       \
    "%m\\0' "                                                                                      \
    "-o -printf '%p %y %l\\0' \\) | LC_ALL=C sort -z"

/* Names, types, modes, times of files and content. */
static void expect_same(const char *a, const char *b)
{
    char command[200];
    snprintf(command, sizeof command, "diff -r --no-dereference %s %s", a, b);
    run(command);
    cr_assert_eq(chdir(a), 0);
    run(LIST " > ../a.list");
    snprintf(command, sizeof command, "../%s", b);
    cr_assert_eq(chdir(command), 0);
    run(LIST " > ../b.list");
    cr_assert_eq(chdir(".."), 0);
    run("cmp a.list b.list");
}

Test(vsock_archive, R37_any_tree_is_the_same_after_gnu_tar_and_after_the_agent)
{
    static const char *const formats[] = {"gnu", "pax", "ustar", "v7"};
    struct bench bench = bench_new();
    uint64_t random = support_seed();
    for (int round = 0; round < 12; round++) {
        struct error err = {0};
        struct vsock_unpacked unpacked;
        char command[300];
        run("rm -rf tree by-tar by-agent by-both && mkdir tree by-tar by-agent");
        int dir = open("tree", O_RDONLY | O_DIRECTORY);
        make_tree(&random, dir, 3);
        close(dir);
        cr_assert_eq(pack(&bench, "tree", "out.tar", &err), 0, "%s", err.msg);
        run("tar --warning=no-timestamp -xpf out.tar -C by-tar");
        expect_same("tree", "by-tar");
        cr_assert_eq(unpack(&bench, "out.tar", "by-agent", &unpacked, &err), 0, "%s", err.msg);
        cr_assert(!unpacked.created);
        expect_same("tree", "by-agent");
        snprintf(command, sizeof command, "tar --format=%s -cf in.tar -C tree . 2> complaints",
                 formats[round % 4]);
        if (system(command) != 0) /* a name that this form has no room for */
            continue;
        cr_assert_eq(unpack(&bench, "in.tar", "by-both", &unpacked, &err), 0, "%s", err.msg);
        cr_assert(unpacked.created);
        expect_same("tree", "by-both");
    }
    bench_free(&bench);
}

Test(vsock_archive, R28_what_cannot_be_in_an_archive_is_left_out_and_a_file_system_is_not_left)
{
    struct bench bench = bench_new();
    struct error err = {0};
    run("mkdir -p t/m t/d && mkfifo t/fifo && echo x > t/a && ln t/a t/b && ln -s nowhere t/link "
        "&& "
        "mount -t tmpfs none t/m && echo y > t/m/y");
    cr_assert_eq(pack(&bench, "t", "out.tar", &err), 0, "%s", err.msg);
    run("umount t/m && tar -tf out.tar | sort | tr '\\n' ' ' > names && "
        "echo -n 'a b d/ link m/ ' | cmp - names");
    cr_assert_eq(pack(&bench, "t/a", "out.tar", &err), -1, "a file is no directory");
    err = (struct error){0};
    cr_assert_eq(pack(&bench, "none", "out.tar", &err), -1);
    cr_assert_eq(err.code, ERR_FILE_UNKNOWN);
    bench_free(&bench);
}

/* ---- hostile archives ---- */

static void put_member(FILE *file, struct guest_tar_member member, const char *content)
{
    static const uint8_t zeros[GUEST_TAR_BLOCK];
    uint8_t headers[GUEST_TAR_HEADERS_MAX];
    member.mode = 0644;
    size_t len = guest_tar_headers(&member, headers);
    cr_assert_eq(fwrite(headers, 1, len, file), len);
    if (content == NULL)
        return;
    fputs(content, file);
    fwrite(zeros, 1, guest_tar_padding(member.size), file);
}

static void put_end(FILE *file)
{
    static const uint8_t zeros[2 * GUEST_TAR_BLOCK];
    fwrite(zeros, 1, sizeof zeros, file);
    cr_assert_eq(fclose(file), 0);
}

/* A good member, a bad one, and in the end perhaps nothing: refused for these words, into a new
 * directory and into one that is there. */
static void expect_refused(struct bench *bench, const struct guest_tar_member *members,
                           size_t count, bool whole, const char *words)
{
    FILE *file = fopen("bad.tar", "we");
    put_member(file, (struct guest_tar_member){.name = "good", .type = GUEST_TAR_FILE, .size = 5},
               "good\n");
    for (size_t i = 0; i < count; i++)
        put_member(file, members[i], members[i].size == 4 ? "evil" : NULL);
    if (whole)
        put_end(file);
    else
        fclose(file);
    for (int there = 0; there < 2; there++) {
        struct error err = {0};
        struct vsock_unpacked unpacked;
        run(there ? "rm -rf in && mkdir in" : "rm -rf in");
        cr_assert_eq(unpack(bench, "bad.tar", "in", &unpacked, &err), -1, "%s", words);
        cr_assert_eq(err.code, ERR_ARCHIVE, "%s: %s", words, err.msg);
        cr_assert(strstr(err.msg, words) != NULL, "%s: %s", words, err.msg);
        run(there ? "test -s in/good" : "test ! -e in");
        run("test -z \"$(find . -name '.motte-*')\" && test ! -s outside/evil && test ! -e evil");
        support_agent_stop(&bench->agent);
        vsock_conn_free(bench->conn);
        connect_agent(bench);
    }
}

static struct guest_tar_member evil(const char *path)
{
    struct guest_tar_member member = {.type = GUEST_TAR_FILE, .size = 4};
    snprintf(member.name, sizeof member.name, "%s", path);
    return member;
}

#define REFUSED(bench, words, whole, ...)                                                          \
    expect_refused(bench, (struct guest_tar_member[]){__VA_ARGS__},                                \
                   COUNT_OF(((struct guest_tar_member[]){__VA_ARGS__})), whole, words)

Test(vsock_archive, R31_an_archive_that_would_reach_out_is_refused_and_leaves_nothing)
{
    struct bench bench = bench_new();
    run("mkdir outside");
    REFUSED(&bench, "..", true, evil("../evil"));
    REFUSED(&bench, "..", true, evil("a/../../evil"));
    REFUSED(&bench, "absolute", true, evil("/tmp/motte-evil"));
    REFUSED(&bench, "itself", true, evil("./"));
    REFUSED(&bench, "through a link", true,
            {.name = "way", .type = GUEST_TAR_SYMLINK, .target = "../outside"}, evil("way/evil"));
    REFUSED(&bench, "no directory", true,
            {.name = "way", .type = GUEST_TAR_SYMLINK, .target = "../outside"},
            {.name = "way/", .type = GUEST_TAR_DIRECTORY});
    REFUSED(&bench, "..", true, {.name = "l", .type = GUEST_TAR_LINK, .target = "../bad.tar"});
    REFUSED(&bench, "absolute", true,
            {.name = "l", .type = GUEST_TAR_LINK, .target = "/etc/passwd"});
    REFUSED(&bench, "through a link", true,
            {.name = "way", .type = GUEST_TAR_SYMLINK, .target = ".."},
            {.name = "l", .type = GUEST_TAR_LINK, .target = "way/bad.tar"});
    REFUSED(&bench, "No such file", true, {.name = "l", .type = GUEST_TAR_LINK, .target = "none"});
    REFUSED(&bench, "neither", true, {.name = "null", .type = '3'});
    REFUSED(&bench, "neither", true, {.name = "fifo", .type = '6'});
    REFUSED(&bench, "Is a directory", true, {.name = "d/", .type = GUEST_TAR_DIRECTORY}, evil("d"));
    bench_free(&bench);
}

Test(vsock_archive, R31_an_archive_that_is_none_or_ends_early_is_refused)
{
    struct bench bench = bench_new();
    run("mkdir outside");
    REFUSED(&bench, "cut off", false, evil("last")); /* no end */
    REFUSED(&bench, "cut off", true, {.name = "huge", .type = GUEST_TAR_FILE, .size = 1LL << 52});
    REFUSED(&bench, "no number", true, {.name = "negative", .type = GUEST_TAR_FILE, .size = -4});
    REFUSED(&bench, "a link has content", true, {.name = "l", .type = GUEST_TAR_LINK, .size = 4});
    struct error err = {0};
    struct vsock_unpacked unpacked;
    run("head -c 5000 /dev/urandom > noise && truncate -s 0 empty && truncate -s 1024 none");
    cr_assert_eq(unpack(&bench, "none", "in", &unpacked, &err), 0, "%s", err.msg);
    cr_assert_eq(unpacked.entries, 0);
    cr_assert_eq(unpack(&bench, "empty", "in", &unpacked, &err), -1);
    cr_assert_eq(err.code, ERR_ARCHIVE, "%s", err.msg);
    err = (struct error){0};
    support_agent_stop(&bench.agent);
    vsock_conn_free(bench.conn);
    connect_agent(&bench);
    cr_assert_eq(unpack(&bench, "noise", "in", &unpacked, &err), -1);
    cr_assert_eq(err.code, ERR_ARCHIVE, "%s", err.msg);
    bench_free(&bench);
}

Test(vsock_archive, R31_a_link_in_the_way_is_replaced_and_hard_links_are_made)
{
    struct bench bench = bench_new();
    struct error err = {0};
    struct vsock_unpacked unpacked;
    run("mkdir outside in src && echo kept > outside/x && ln -s ../outside/x in/f && echo new > "
        "src/f "
        "&& ln src/f src/g && tar -cf in.tar -C src f g g");
    cr_assert_eq(unpack(&bench, "in.tar", "in", &unpacked, &err), 0, "%s", err.msg);
    run("grep -q kept outside/x && test ! -L in/f && grep -q new in/f && test in/f -ef in/g && "
        "test \"$(ls -A in | tr '\\n' ' ')\" = 'f g '");
    bench_free(&bench);
}
