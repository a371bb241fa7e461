#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ACCOUNTS_MAX = 1 << 20 };

/* The image may have put anything there: a FIFO would hold us for ever. */
static FILE *open_accounts(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0)
        return NULL;
    FILE *file = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= ACCOUNTS_MAX)
        file = fdopen(fd, "r");
    if (!file)
        close(fd);
    return file;
}

/* Whole decimal number below 2^32 - 1 (which means "no change" to setuid). */
static bool parse_id(const char *text, size_t len, uint32_t *ret)
{
    uint64_t value = 0;
    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *ret = (uint32_t)value;
    return value < UINT32_MAX;
}

/* By name, or by uid when name is NULL. */
static bool find_account(const char *name, uid_t uid, struct guest_user *ret)
{
    FILE *file = open_accounts("/etc/passwd");
    bool found = false;
    for (struct passwd *entry; file && !found && (entry = fgetpwent(file));) {
        found = name ? strcmp(entry->pw_name, name) == 0 : entry->pw_uid == uid;
        if (!found)
            continue;
        ret->uid = entry->pw_uid;
        ret->gid = entry->pw_gid;
        snprintf(ret->home, sizeof ret->home, "%s", entry->pw_dir);
    }
    if (file)
        fclose(file);
    return found;
}

static void find_groups(const char *name, struct guest_user *ret)
{
    FILE *file = open_accounts("/etc/group");
    for (struct group *entry; file && (entry = fgetgrent(file));)
        for (char **member = entry->gr_mem; *member; member++)
            if (strcmp(*member, name) == 0 && ret->group_count < GUEST_GROUPS_MAX)
                ret->groups[ret->group_count++] = entry->gr_gid;
    if (file)
        fclose(file);
}

int guest_user_find(const char *text, struct guest_user *ret)
{
    struct guest_user user = {.home = "/"};
    const char *colon = strchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    uint32_t gid;
    if (parse_id(text, len, &user.uid)) {
        user.gid = user.uid;
        find_account(NULL, user.uid, &user);
        if (colon && !parse_id(colon + 1, strlen(colon + 1), &gid))
            return -1;
        if (colon)
            user.gid = gid;
    } else if (!colon && find_account(text, 0, &user)) {
        find_groups(text, &user);
    } else if (strcmp(text, "root") == 0) { /* an image without accounts has a root all the same */
        snprintf(user.home, sizeof user.home, "/root");
    } else {
        return -1;
    }
    *ret = user;
    return 0;
}
