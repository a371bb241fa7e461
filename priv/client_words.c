/* What the client's operations share: ids on their way out, and looks at what comes back. */
#include "priv/client_internal.h"

int priv_call_name(char out[static ID_INSTANCE_SIZE], const char *id, struct error *err)
{
    if (!id_instance_valid(id)) {
        return error_set(err, ERR_INTERNAL, 0, "\"%.32s\" is no id of an instance or snapshot", id);
    }
    memcpy(out, id, ID_INSTANCE_LEN);
    return 0;
}

int priv_call_nonsense(const struct priv_call *call, struct error *err)
{
    return error_set(err, ERR_INTERNAL, 0,
                     "the root half (motted) answered operation %u with nonsense",
                     (unsigned)call->op);
}

bool priv_text_ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

bool priv_id_sound(const char id[static ID_INSTANCE_SIZE])
{
    return id[0] == '\0' || (priv_text_ends(id, ID_INSTANCE_SIZE) && id_instance_valid(id));
}
