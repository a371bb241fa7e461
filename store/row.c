/* One table says how each member of a struct lies in a row; binding and reading follow it. */
#include "store/internal.h"

#define VM_COLUMN(kind, member) STORE_COLUMN(struct store_vm, kind, member)
static const struct store_column vm_columns[] = {STORE_VM_COLUMNS(VM_COLUMN)};
const struct store_table store_vm_table = {"a VM", vm_columns, COUNT_OF(vm_columns),
                                           sizeof(struct store_vm)};

#define SNAPSHOT_COLUMN(kind, member) STORE_COLUMN(struct store_snapshot, kind, member)
static const struct store_column snapshot_columns[] = {STORE_SNAPSHOT_COLUMNS(SNAPSHOT_COLUMN)};
const struct store_table store_snapshot_table = {
    "a snapshot", snapshot_columns, COUNT_OF(snapshot_columns), sizeof(struct store_snapshot)};

/* Members are bool, 32-bit (unsigned or the state) or int64_t. */
_Static_assert(sizeof(bool) == 1 && sizeof(enum store_state) == 4, "load and save go by size");

static int64_t load(const void *member, size_t size)
{
    bool flag = false;
    uint32_t word = 0;
    int64_t number = 0;
    if (size == sizeof(flag)) {
        memcpy(&flag, member, size);
        return flag;
    }
    if (size == sizeof(word)) {
        memcpy(&word, member, size);
        return word;
    }
    memcpy(&number, member, sizeof(number));
    return number;
}

static int save(void *member, size_t size, int64_t number)
{
    if (size == sizeof(bool)) {
        bool flag = number == 1;
        memcpy(member, &flag, size);
        return number == 0 || number == 1 ? 0 : -1;
    }
    if (size == sizeof(uint32_t)) {
        uint32_t word = (uint32_t)number;
        memcpy(member, &word, size);
        return number >= 0 && number <= UINT32_MAX ? 0 : -1;
    }
    memcpy(member, &number, sizeof(number));
    return 0;
}

int store_row_bind(sqlite3_stmt *statement, const struct store_table *table, const void *row,
                   struct error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct store_column *column = &table->columns[i];
        const char *member = (const char *)row + column->offset;
        int index = (int)i + 1, rc = SQLITE_OK;
        if (column->kind == STORE_TEXT)
            rc = sqlite3_bind_text(statement, index, member, (int)strnlen(member, column->size),
                                   SQLITE_STATIC);
        else if (column->kind == STORE_BYTES)
            rc = sqlite3_bind_blob(statement, index, member, (int)column->size, SQLITE_STATIC);
        else
            rc = sqlite3_bind_int64(statement, index, load(member, column->size));
        if (rc != SQLITE_OK)
            return store_fail(sqlite3_db_handle(statement), rc, "binding", err);
    }
    return 0;
}

/* Text with its NUL must fit; bytes must fill the member. */
static int read_bytes(sqlite3_stmt *statement, int index, const struct store_column *column,
                      char *out)
{
    const void *data = sqlite3_column_blob(statement, index);
    size_t len = (size_t)sqlite3_column_bytes(statement, index);
    if (column->kind == STORE_TEXT ? len >= column->size : len != column->size)
        return -1;
    if (len > 0 && data == NULL)
        return -1;
    if (len > 0)
        memcpy(out, data, len);
    return 0;
}

int store_row_read(sqlite3_stmt *statement, const struct store_table *table, void *ret,
                   struct error *err)
{
    memset(ret, 0, table->size);
    for (size_t i = 0; i < table->count; i++) {
        const struct store_column *column = &table->columns[i];
        char *member = (char *)ret + column->offset;
        int index = (int)i + 1; /* 0 is seq */
        int result = column->kind == STORE_NUMBER
                         ? save(member, column->size, sqlite3_column_int64(statement, index))
                         : read_bytes(statement, index, column, member);
        if (result < 0)
            return error_set(err, ERR_STORE, 0, "the inventory is damaged: `%s` of %s does not fit",
                             column->name, table->what);
    }
    return 0;
}
