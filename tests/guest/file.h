/* Files in the memory that nothing else uses, by their whole path: there are no directories. */
#ifndef MOTTE_TESTS_GUEST_FILE_H
#define MOTTE_TESTS_GUEST_FILE_H

#include "message.h"
#include "vsock.h"

enum { FILES = 96, FILE_PATH_SIZE = sizeof((struct message *)0)->path };

struct file_block;

/* Lives as long as it has a name or somebody reads or writes it. */
struct file {
    bool named;
    unsigned refs;
    char path[FILE_PATH_SIZE];
    uint64_t size, mode;
    struct file_block *first, *last;
};

struct files {
    struct file_block *free;
    uint64_t next, end; /* memory that was never a block */
    struct file files[FILES];
};

/* What a session does with one; all zero: nothing. */
struct file_transfer {
    struct file *file; /* counted */
    uint64_t id;
    bool writing, sending;
    const struct file_block *at; /* where what is still to be sent begins */
    uint64_t offset, left;       /* in the block; in all */
};

struct guest;
/* Memory's end, by what the VMM said. */
void file_start(struct files *files, const uint32_t *start_info);
/* NULL, or why it is refused: then *ret_words says more. An answer that says yes is sent here. */
const char *file_request(struct guest *guest, struct vsock_conn *conn,
                         struct file_transfer *transfer, const struct message *message,
                         const char **ret_words);
/* False: this is not the time for it. */
bool file_send(struct file_transfer *transfer, const struct message *message);
/* A frame of what is written. NULL, or a refusal as above. */
const char *file_input(struct guest *guest, struct vsock_conn *conn, struct file_transfer *transfer,
                       const uint8_t *data, size_t len, const char **ret_words);
/* Goes on sending; true if it moved. */
bool file_step(struct guest *guest, struct vsock_conn *conn, struct file_transfer *transfer);
void file_abandon(struct files *files, struct file_transfer *transfer);

#endif
