#include "tools.h"
#include <criterion/criterion.h>
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { PATIENCE_MS = 10000, STEP_MS = 5 };

static bool in_directory(const char *directory, size_t len, const char *name, char *ret)
{
    return snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, directory, name) < PATH_MAX &&
           access(ret, X_OK) == 0;
}

bool tools_find(const char *name, char ret[static PATH_MAX])
{
    char variable[64];
    snprintf(variable, sizeof(variable), "MOTTE_%s", name);
    for (char *c = variable; *c != '\0'; c++) {
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    }
    const char *told = getenv(variable);
    if (told != NULL) {
        snprintf(ret, PATH_MAX, "%s", told);
        return access(ret, X_OK) == 0;
    }
    const char *path = getenv("PATH");
    for (const char *at = path; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ":");
        if (len > 0 && in_directory(at, len, name, ret)) {
            return true;
        }
        at += len + (at[len] == ':');
    }
    return in_directory("/usr/local/bin", 14, name, ret) ||
           in_directory("/opt/motte-tools", 16, name, ret);
}

void tools_directory(char ret[static 64])
{
    snprintf(ret, 64, "/tmp/motte-priv-XXXXXX");
    cr_assert_not_null(mkdtemp(ret), "%m");
}

void tools_remove(const char *path)
{
    cleanup_close int parent = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(fs_remove_tree(parent, path + strlen("/tmp/")), 0, "%s: %m", path);
}

void tools_write(const char *directory, const char *name, const void *data, size_t len)
{
    cleanup_close int dir = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    cr_assert(fd >= 0 && fs_write_all(fd, data, len) == 0, "%s/%s: %m", directory, name);
}

int tools_connect(const char *path, pid_t pid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cr_assert_lt(strlen(path), sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (clock_mono_ms() < deadline) {
        cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            return TAKE_FD(fd);
        }
        siginfo_t info = {0};
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
        cr_assert_eq(info.si_pid, 0, "%s: process ended, code %d status %d", path, info.si_code,
                     info.si_status);
        poll(NULL, 0, STEP_MS);
    }
    cr_assert_fail("nobody listens on %s", path);
    return -1;
}

void tools_talk(int fd, const char *text, const char *wanted)
{
    char answer[16384];
    size_t len = 0;
    cr_assert_eq(fs_write_all(fd, text, strlen(text)), 0, "%m");
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        answer[len] = '\0';
        if (strstr(answer, wanted) != NULL) {
            return;
        }
        cr_assert_eq(poll(&ready, 1, clock_left_ms(deadline)), 1, "no %s in: %s", wanted, answer);
        ssize_t n = read(fd, answer + len, sizeof(answer) - 1 - len);
        cr_assert_gt(n, 0, "closed; no %s in: %s", wanted, answer);
        len += (size_t)n;
    }
}

int tools_wait(pid_t pid)
{
    int status;
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (clock_mono_ms() < deadline) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        poll(NULL, 0, STEP_MS);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    cr_assert_fail("process %d did not end", pid);
    return -1;
}

void tools_seccomp(const char *status_path, unsigned *ret_mode, unsigned *ret_filters)
{
    char text[8192];
    cr_assert_gt(fs_read_at(AT_FDCWD, status_path, text, sizeof(text)), 0, "%s: %m", status_path);
    const char *mode = strstr(text, "\nSeccomp:"), *filters = strstr(text, "\nSeccomp_filters:");
    cr_assert(mode != NULL && filters != NULL);
    *ret_mode = (unsigned)strtoul(mode + strlen("\nSeccomp:"), NULL, 10);
    *ret_filters = (unsigned)strtoul(filters + strlen("\nSeccomp_filters:"), NULL, 10);
}

size_t tools_kernel(uint8_t *out, size_t size)
{
    static const uint8_t code[] = {0xfa, 0xf4, 0xeb, 0xfd}; /* cli; 1: hlt; jmp 1b */
    enum { ENTRY = 0x1000000 };
    struct image {
        Elf64_Ehdr head;
        Elf64_Phdr load, note;
        Elf64_Nhdr note_head;
        char owner[4];
        uint32_t entry;
        uint8_t code[sizeof(code)];
    } image = {
        .head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_X86_64,
                 .e_version = EV_CURRENT,
                 .e_entry = ENTRY,
                 .e_phoff = offsetof(struct image, load),
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .load = {.p_type = PT_LOAD,
                 .p_flags = PF_R | PF_W | PF_X,
                 .p_offset = offsetof(struct image, code),
                 .p_vaddr = ENTRY,
                 .p_paddr = ENTRY,
                 .p_filesz = sizeof(code),
                 .p_memsz = sizeof(code)},
        .note = {.p_type = PT_NOTE,
                 .p_offset = offsetof(struct image, note_head),
                 .p_filesz = sizeof(Elf64_Nhdr) + 8,
                 .p_memsz = sizeof(Elf64_Nhdr) + 8,
                 .p_align = 4},
        .note_head = {.n_namesz = 4, .n_descsz = 4, .n_type = 18 /* XEN_ELFNOTE_PHYS32_ENTRY */},
        .owner = "Xen",
        .entry = ENTRY,
    };
    cr_assert_leq(sizeof(image), size);
    memcpy(image.code, code, sizeof(code));
    memcpy(out, &image, sizeof(image));
    return sizeof(image);
}
