/* An inventory in a directory of its own. Without Criterion: the thread test uses it too. */
#ifndef MOTTE_TEST_FIXTURE_H
#define MOTTE_TEST_FIXTURE_H

#include "store/store.h"

/* SQL that takes out what came with a schema, and with those after it. */
#define FIXTURE_WITHOUT_7                                                                          \
    "ALTER TABLE audit DROP COLUMN previous; ALTER TABLE audit_size DROP COLUMN lost;"             \
    "ALTER TABLE audit_size DROP COLUMN first; ALTER TABLE audit_size DROP COLUMN boot;"           \
    "DROP TABLE calls; DROP TABLE calls_size;"
#define FIXTURE_WITHOUT_6 FIXTURE_WITHOUT_7 "DROP TABLE keys;"
#define FIXTURE_WITHOUT_5                                                                          \
    FIXTURE_WITHOUT_6                                                                              \
    "DROP INDEX vms_pooled; ALTER TABLE vms DROP COLUMN purpose;"                                  \
    "ALTER TABLE vms DROP COLUMN source; ALTER TABLE certificates DROP COLUMN purpose;"            \
    "DROP INDEX vms_by_snapshot; ALTER TABLE vms DROP COLUMN snapshot;"                            \
    "DROP TABLE snapshots; DROP TABLE snapshotting;"

struct fixture {
    char dir[32];
    struct store *store;
};

/* 0 or -1 with err. */
int fixture_open(struct fixture *fixture, struct error *err);
/* Elsewhere than in /tmp: a short absolute path. */
int fixture_open_in(struct fixture *fixture, const char *parent, struct error *err);
void fixture_release(struct fixture *fixture);
/* Closes and opens again. */
int fixture_reopen(struct fixture *fixture, struct error *err);
/* A row with every member filled, different for each call; instance and chain are new. */
struct store_vm fixture_vm(const char *owner, const char *id);
/* Inserts such a row and returns it. Aborts on failure. */
struct store_vm fixture_add(struct store *store, const char *owner, const char *id);
/* The same for one that runs in the pool. */
#define FIXTURE_POOLED_LABELS "{\"kernel\":\"one\"}"
struct store_vm fixture_add_pooled(struct store *store);
/* Ends it as deleted. Aborts on failure. */
void fixture_end(struct store *store, const char *instance);

#endif
