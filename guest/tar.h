/*
 * tar: the format alone, for pack.c and unpack.c. Names are bytes of any encoding. Written is GNU tar's
 * form, whose long names are bytes too; read are that, ustar, pax and what came before them. Neither
 * side keeps more than one member's names.
 */
#ifndef MOTTE_GUEST_TAR_H
#define MOTTE_GUEST_TAR_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    GUEST_TAR_BLOCK = 512,
    /* The most that one member's headers take. */
    GUEST_TAR_HEADERS_MAX = 5 * GUEST_TAR_BLOCK + 2 * (PATH_MAX + GUEST_TAR_BLOCK),
};

enum guest_tar_type {
    GUEST_TAR_FILE = '0',
    GUEST_TAR_LINK = '1', /* to a member before it */
    GUEST_TAR_SYMLINK = '2',
    GUEST_TAR_DIRECTORY = '5',
};

struct guest_tar_member {
    char name[PATH_MAX];
    char target[PATH_MAX]; /* of both kinds of link */
    char type;             /* enum guest_tar_type, or what else stood there */
    uint32_t mode;         /* ≤ 07777 */
    uint32_t uid, gid;     /* not read */
    int64_t size;          /* of its content; 0 but for files */
    int64_t mtime_s;
};

/* How many bytes of headers, a multiple of GUEST_TAR_BLOCK. Names must be shorter than PATH_MAX. */
size_t guest_tar_headers(const struct guest_tar_member *member,
                         uint8_t out[static GUEST_TAR_HEADERS_MAX]);
/* Zeros that follow `size` bytes of content. */
size_t guest_tar_padding(int64_t size);

/* Start with all else zero. */
struct guest_tar_reader {
    /* The next bytes, up to `size` of them; 0: there are none; -1: they cannot be had. */
    ssize_t (*read)(void *context, void *data, size_t size);
    void *context;
    int64_t left, padding; /* of the content that is being read */
    const char *wrong;     /* after -1: why this is no archive; NULL: it could not be read */
};
/* 1: the next member, whose content may follow; 0: the archive has ended as it must; -1. What was not
 * read of the member before is skipped. */
int guest_tar_next(struct guest_tar_reader *reader, struct guest_tar_member *ret);
/* Content: as many bytes as came, up to `size`; 0: that was all; -1. */
ssize_t guest_tar_content(struct guest_tar_reader *reader, void *data, size_t size);

#endif
