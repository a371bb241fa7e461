/*
 * The schema, one string a version. A string that was released is never edited: a new one is added.
 * STRICT tables: SQLite then holds the types, and a column too many or of the wrong kind is an
 * error.
 */
#include "store/internal.h"

/* seq is the order of creation and never reused (AUTOINCREMENT): lists page by it, and a
 * certificate keeps it so that a page can go on after a VM that has ended meanwhile. */
static const char version_1[] =
    "CREATE TABLE vms ("
    "  seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  instance TEXT NOT NULL UNIQUE,"
    "  id TEXT NOT NULL,"
    "  owner TEXT NOT NULL,"
    "  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4)," /* the ended are certificates */
    "  reason TEXT NOT NULL,"
    "  message TEXT NOT NULL,"
    "  image TEXT NOT NULL,"
    "  image_digest BLOB NOT NULL CHECK (length(image_digest) = 32),"
    "  vcpus INTEGER NOT NULL,"
    "  memory_mib INTEGER NOT NULL,"
    "  disk_mib INTEGER NOT NULL,"
    "  seccomp TEXT NOT NULL,"
    "  hypervisor TEXT NOT NULL,"
    "  emulated INTEGER NOT NULL CHECK (emulated IN (0, 1)),"
    "  without INTEGER NOT NULL,"
    "  uid INTEGER NOT NULL,"
    "  layout INTEGER NOT NULL,"
    "  chain TEXT NOT NULL UNIQUE,"
    "  ttl_s INTEGER NOT NULL,"
    "  created_wall_ms INTEGER NOT NULL,"
    "  state_wall_ms INTEGER NOT NULL,"
    "  expires_boot_ms INTEGER NOT NULL,"
    "  boot TEXT NOT NULL,"
    "  labels TEXT NOT NULL,"
    "  steps TEXT NOT NULL,"
    "  guest TEXT NOT NULL,"
    "  UNIQUE (owner, id)"
    ") STRICT;"
    "CREATE TABLE certificates ("
    "  number INTEGER PRIMARY KEY AUTOINCREMENT," /* the order of ending: the oldest go first */
    "  seq INTEGER NOT NULL UNIQUE,"
    "  instance TEXT NOT NULL UNIQUE,"
    "  id TEXT NOT NULL,"
    "  owner TEXT NOT NULL,"
    "  state INTEGER NOT NULL CHECK (state BETWEEN 5 AND 7),"
    "  reason TEXT NOT NULL,"
    "  message TEXT NOT NULL,"
    "  console BLOB NOT NULL,"
    "  image TEXT NOT NULL,"
    "  image_digest BLOB NOT NULL,"
    "  hypervisor TEXT NOT NULL,"
    "  without INTEGER NOT NULL,"
    "  created_wall_ms INTEGER NOT NULL,"
    "  ended_wall_ms INTEGER NOT NULL"
    ") STRICT;"
    "CREATE INDEX certificates_by_id ON certificates (id, owner, number);";

/* Whose VM it was stands in each entry: its row and its certificate may go before. audit_size has one
 * row and is changed with the table. */
static const char version_2[] = "CREATE TABLE audit ("
                                "  seq INTEGER PRIMARY KEY,"
                                "  wall_ms INTEGER NOT NULL,"
                                "  instance TEXT NOT NULL,"
                                "  number INTEGER NOT NULL," /* of the VM's entries, from 1 */
                                "  id TEXT NOT NULL,"
                                "  owner TEXT NOT NULL,"
                                "  kind INTEGER NOT NULL,"
                                "  detail TEXT NOT NULL,"
                                "  UNIQUE (instance, number)"
                                ") STRICT;"
                                "CREATE TABLE audit_size (entries INTEGER NOT NULL) STRICT;"
                                "INSERT INTO audit_size VALUES (0);";

/* clock: time that this host was up, as far as the service knows, from start to start of it and over
 * reboots; certificates age by it, so that setting the wall clock ages none. */
static const char version_3[] =
    "ALTER TABLE vms ADD COLUMN expires_wall_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vms ADD COLUMN idle_s INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vms ADD COLUMN idle_since_boot_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vms ADD COLUMN agent INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vms ADD COLUMN on_unresponsive INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE certificates ADD COLUMN ended_up_ms INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE clock (up_ms INTEGER NOT NULL, boot TEXT NOT NULL, boot_ms INTEGER NOT NULL) "
    "STRICT;"
    "INSERT INTO clock VALUES (0, '', 0);";

/* One row while the host is cordoned. drain_boot_ms: 0 without a drain. */
static const char version_4[] = "CREATE TABLE cordon ("
                                "  one INTEGER PRIMARY KEY CHECK (one = 1),"
                                "  owner TEXT NOT NULL,"
                                "  since_wall_ms INTEGER NOT NULL,"
                                "  drain_wall_ms INTEGER NOT NULL,"
                                "  drain_boot_ms INTEGER NOT NULL"
                                ") STRICT;";

const char *const store_migrations[] = {version_1, version_2, version_3, version_4};
const int store_version = (int)COUNT_OF(store_migrations);
