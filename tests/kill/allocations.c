/*
 * To be preloaded: allocations that fail on demand. The test and both halves share the file that
 * MOTTE_ALLOCATIONS names, so that it can give its orders while they run and no system call is
 * needed, which the front's filter might forbid.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *block);

#define EXPORTED __attribute__((visibility("default")))

/* One for motted, one for motte-front; harness/allocations.py knows it too. */
struct half {
    _Atomic uint64_t count;  /* of allocations so far */
    uint64_t first, last;    /* of those that fail, counted from 1; 0: none */
    _Atomic uint64_t failed; /* of allocations */
    /* Allocated and not freed, since the page was mapped; without blocks of a page and more, which
     * SQLite keeps as the inventory grows. */
    _Atomic int64_t held;
};

static struct half *half;

__attribute__((constructor)) static void share(void)
{
    const char *path = getenv("MOTTE_ALLOCATIONS");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = mmap(NULL, 2 * sizeof(struct half), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        half = (struct half *)page + (strcmp(program_invocation_short_name, "motted") != 0);
}

static int refused(void)
{
    if (half == NULL)
        return 0;
    uint64_t number = atomic_fetch_add(&half->count, 1) + 1;
    if (number < half->first || number > half->last)
        return 0;
    atomic_fetch_add(&half->failed, 1);
    errno = ENOMEM;
    return 1;
}

static int64_t counts(void *block)
{
    enum { PAGE = 4096 };
    return block != NULL && malloc_usable_size(block) < PAGE ? 1 : 0;
}

static void hold(int64_t more)
{
    if (half != NULL)
        atomic_fetch_add(&half->held, more);
}

static void *held(void *block)
{
    hold(counts(block));
    return block;
}

EXPORTED void *malloc(size_t size)
{
    return refused() ? NULL : held(__libc_malloc(size));
}

EXPORTED void *calloc(size_t count, size_t size)
{
    return refused() ? NULL : held(__libc_calloc(count, size));
}

EXPORTED void *realloc(void *old, size_t size)
{
    if (refused())
        return NULL;
    int64_t before = counts(old);
    void *block = __libc_realloc(old, size);
    if (block != NULL || size == 0)
        hold(counts(block) - before);
    return block;
}

EXPORTED void free(void *block)
{
    hold(-counts(block));
    __libc_free(block);
}
