/* An inventory in a directory of its own. Without Criterion: the thread test uses it too. */
#ifndef MOTTE_TEST_FIXTURE_H
#define MOTTE_TEST_FIXTURE_H

#include "store/store.h"

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
/* Ends it as deleted. Aborts on failure. */
void fixture_end(struct store *store, const char *instance);

#endif
