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

/* snapshotting: one is being made of this VM. purpose, source, kind: enum store_purpose, store_source,
 * store_snapshot_kind. used: of images, the order in which they were. */
static const char version_5[] =
    "ALTER TABLE vms ADD COLUMN snapshot TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE vms ADD COLUMN purpose INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE vms ADD COLUMN source INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE certificates ADD COLUMN purpose INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX vms_by_snapshot ON vms (snapshot) WHERE snapshot <> '';"
    "CREATE INDEX vms_pooled ON vms (image_digest, seq) WHERE purpose = 1;"
    "CREATE TABLE snapshots ("
    "  seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  id TEXT NOT NULL UNIQUE,"
    "  owner TEXT NOT NULL,"
    "  vm TEXT NOT NULL,"
    "  instance TEXT NOT NULL,"
    "  image TEXT NOT NULL,"
    "  image_digest BLOB NOT NULL CHECK (length(image_digest) = 32),"
    "  vcpus INTEGER NOT NULL,"
    "  memory_mib INTEGER NOT NULL,"
    "  disk_mib INTEGER NOT NULL,"
    "  seccomp TEXT NOT NULL,"
    "  hypervisor TEXT NOT NULL,"
    "  generation INTEGER NOT NULL,"
    "  bytes INTEGER NOT NULL,"
    "  created_wall_ms INTEGER NOT NULL,"
    "  kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 2),"
    "  labels TEXT NOT NULL,"
    "  used INTEGER NOT NULL DEFAULT 0"
    ") STRICT;"
    "CREATE INDEX snapshots_of_images ON snapshots (image_digest) WHERE kind = 2;"
    "CREATE TABLE snapshotting (instance TEXT PRIMARY KEY) STRICT;";

/* number: of its owner's keys, in the order in which they came. once: what was begun under it must not
 * be begun again. status: of the answer; 0 while there is none, -1 when there will be none. instance:
 * of the VM that the answer tells of and that does not run yet. */
static const char version_6[] =
    "CREATE TABLE keys ("
    "  owner TEXT NOT NULL,"
    "  key BLOB NOT NULL CHECK (length(key) = 32),"
    "  number INTEGER NOT NULL,"
    "  request BLOB NOT NULL CHECK (length(request) = 32),"
    "  once INTEGER NOT NULL CHECK (once IN (0, 1)),"
    "  made_up_ms INTEGER NOT NULL,"
    "  status INTEGER NOT NULL DEFAULT 0,"
    "  location TEXT NOT NULL DEFAULT '',"
    "  answer BLOB,"
    "  instance TEXT NOT NULL DEFAULT '',"
    "  PRIMARY KEY (owner, key),"
    "  UNIQUE (owner, number)"
    ") STRICT;"
    "CREATE INDEX keys_by_instance ON keys (instance) WHERE instance <> '';";

/* previous: the entry before it of the same VM, which may have gone. first: no number up to it is
 * given any more; boot: for which that was said; lost: the last number that the ring of all gave up.
 * calls: by whom, "" where nobody knows; number: of his. */
static const char version_7[] =
    "ALTER TABLE audit ADD COLUMN previous INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE audit_size ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE audit_size ADD COLUMN first INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE audit_size ADD COLUMN boot TEXT NOT NULL DEFAULT '';"
    "CREATE TABLE calls ("
    "  seq INTEGER PRIMARY KEY,"
    "  caller TEXT NOT NULL,"
    "  number INTEGER NOT NULL,"
    "  wall_ms INTEGER NOT NULL,"
    "  token TEXT NOT NULL,"
    "  request_id TEXT NOT NULL,"
    "  method TEXT NOT NULL,"
    "  route TEXT NOT NULL,"
    "  path TEXT NOT NULL,"
    "  vm TEXT NOT NULL,"
    "  status INTEGER NOT NULL,"
    "  code TEXT NOT NULL,"
    "  UNIQUE (caller, number)"
    ") STRICT;"
    "CREATE TABLE calls_size (entries INTEGER NOT NULL, lost INTEGER NOT NULL) STRICT;"
    "INSERT INTO calls_size VALUES (0, 0);";

const char *const store_migrations[] = {version_1, version_2, version_3, version_4,
                                        version_5, version_6, version_7};
const int store_version = (int)COUNT_OF(store_migrations);
