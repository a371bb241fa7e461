/* A machine that comes from a snapshot becomes one of its own, before anybody may use it. */
#include "vmm/internal.h"

enum { HOSTNAME_LEN = 12, MACHINE_ID_BYTES = 16 };

/* Both follow from the instance, which is random and never used again. */
struct names {
    char hostname[HOSTNAME_LEN + 1];
    char machine_id[2 * MACHINE_ID_BYTES + 1];
};

static struct names make_names(const char *instance)
{
    struct names names;
    uint8_t digest[HASH_SIZE];
    memcpy(names.hostname, instance, HOSTNAME_LEN);
    names.hostname[HOSTNAME_LEN] = '\0';
    hash_sha256(instance, strlen(instance), digest);
    hash_to_hex(digest, MACHINE_ID_BYTES, names.machine_id);
    return names;
}

/* To refuse a command is an agent's right; this is what it is there for. */
static int blame(struct error *err)
{
    struct error refusal = *err;
    *err = (struct error){0};
    return error_set(err, ERR_GUEST_PROTOCOL, 0,
                     "the agent does not become another machine: %.160s", refusal.msg);
}

int vmm_restore(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms,
                struct vsock_restored *ret, struct error *err)
{
    const struct names names = make_names(machine->instance);
    const struct vsock_restore_request request = {
        .instance = machine->instance,
        .generation = machine->generation,
        .hostname = names.hostname,
        .machine_id = names.machine_id,
        .token = machine->token,
    };
    if (vmm->hypervisor->restore(machine, &request, deadline_ms, ret, err) == 0)
        return 0;
    return err->code == ERR_GUEST_REFUSED ? blame(err) : -1;
}
