/* Who is admitted: no cordon, an id that is free, and what one owner may have at once. Looked at in the
 * transaction that admits a VM: two requests at once cannot both have the last of it. */
#include "store/internal.h"

void store_quotas_set(struct store *store, const struct store_quotas *quotas)
{
    pthread_mutex_lock(&store->lock);
    store->quotas = *quotas;
    pthread_mutex_unlock(&store->lock);
}

static uint32_t choose(uint32_t own, uint32_t common)
{
    return own == STORE_QUOTA_COMMON ? common : own;
}

struct store_quota store_quota_of(struct store *store, const char *owner)
{
    const struct store_quotas *quotas = &store->quotas;
    pthread_mutex_lock(&store->lock);
    struct store_quota quota = quotas->common;
    for (size_t i = 0; i < quotas->count; i++) {
        const struct store_quota *own = &quotas->of[i].quota;
        if (strcmp(quotas->of[i].owner, owner) != 0)
            continue;
        quota.vms = choose(own->vms, quota.vms);
        quota.vcpus = choose(own->vcpus, quota.vcpus);
        quota.memory_mib = choose(own->memory_mib, quota.memory_mib);
        quota.execs = choose(own->execs, quota.execs);
    }
    pthread_mutex_unlock(&store->lock);
    return quota;
}

struct sums {
    int64_t vms, vcpus, memory_mib;
};

static int add_up(sqlite3 *db, const char *owner, struct sums *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT count(*), total(vcpus), total(memory_mib) FROM vms WHERE owner = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, owner, err) < 0 || store_step(statement, err) < 0)
        return -1;
    *ret = (struct sums){.vms = sqlite3_column_int64(statement, 0),
                         .vcpus = sqlite3_column_int64(statement, 1),
                         .memory_mib = sqlite3_column_int64(statement, 2)};
    return 0;
}

int store_quota_used(struct store *store, const char *owner, struct store_quota *ret,
                     struct error *err)
{
    struct sums sums;
    sqlite3 *db = store_reader_take(store);
    int result = add_up(db, owner, &sums, err);
    store_reader_give(store, db);
    if (result == 0)
        *ret = (struct store_quota){.vms = (uint32_t)sums.vms,
                                    .vcpus = (uint32_t)sums.vcpus,
                                    .memory_mib = (uint32_t)sums.memory_mib};
    return result;
}

static int refuse_over(const char *what, int64_t has, int64_t wants, uint32_t most,
                       struct error *err)
{
    if (most == 0 || has + wants <= most)
        return 0;
    return error_set(err, ERR_QUOTA, 0, "you have %lld %s and want %lld more; at most %u at once",
                     (long long)has, what, (long long)wants, most);
}

static int check_quota(sqlite3 *db, const struct store_quota *quota, const struct store_vm *vm,
                       struct error *err)
{
    struct sums has;
    if ((quota->vms | quota->vcpus | quota->memory_mib) == 0)
        return 0;
    return add_up(db, vm->owner, &has, err) < 0 ||
                   refuse_over("VMs", has.vms, 1, quota->vms, err) < 0 ||
                   refuse_over("vCPUs", has.vcpus, vm->vcpus, quota->vcpus, err) < 0 ||
                   refuse_over("MiB of memory", has.memory_mib, vm->memory_mib, quota->memory_mib,
                               err) < 0
               ? -1
               : 0;
}

static int refuse_taken(sqlite3 *db, const struct store_vm *vm, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "SELECT 1 FROM vms WHERE owner = ?1 AND id = ?2", &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->owner, err) < 0 ||
        store_bind_text(statement, 2, vm->id, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 1)
        return error_set(err, ERR_ID_TAKEN, 0,
                         "there is already a VM `%s`: delete it first or choose another id",
                         vm->id);
    return 0;
}

int store_admit_check(sqlite3 *db, const struct store_quota *quota, const struct store_vm *vm,
                      struct error *err)
{
    struct store_cordon cordon;
    if (store_cordon_read(db, &cordon, err) < 0)
        return -1;
    if (cordon.set)
        return store_cordon_refuse(&cordon, err);
    if (vm->purpose != STORE_FOR_CALLER)
        return 0;
    return refuse_taken(db, vm, err) < 0 ? -1 : check_quota(db, quota, vm, err);
}

int store_vm_admissible(struct store *store, const struct store_vm *vm, struct error *err)
{
    struct store_quota quota = store_quota_of(store, vm->owner);
    sqlite3 *db = store_reader_take(store);
    int result = store_admit_check(db, &quota, vm, err);
    store_reader_give(store, db);
    return result;
}
