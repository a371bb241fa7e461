/* A file of one VM, written, read or removed: a use of the machine, like a command. */
#include "vmm/internal.h"

struct vmm_file {
    struct vmm *vmm;
    struct vmm_machine *machine; /* a reference, in use */
    struct vsock_conn *conn;     /* NULL: none came about */
    unsigned port, changes;
    uint64_t archive; /* the guest's number for it; 0: it is a file */
};

static int connect_to(struct vmm_file *file, struct error *err)
{
    struct vmm *vmm = file->vmm;
    if (vmm_pause_refuse(vmm, file->machine, &file->changes, err) < 0)
        return -1;
    return vmm->hypervisor->connect(vmm, file->machine, clock_mono_ms() + VMM_CONNECT_TIMEOUT_MS,
                                    &file->conn, &file->port, err);
}

/* What `err` means, now that it is known how the VM fared meanwhile. */
static void explain(struct vmm_file *file, struct error *err)
{
    struct vmm *vmm = file->vmm;
    struct vmm_machine *machine = file->machine;
    if (err->code == ERR_GUEST_PROTOCOL)
        vmm_audit_word(vmm, machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "file");
    if (vmm_machine_gone_after(machine, err)) {
        *err = (struct error){0};
        error_set(err, ERR_VM_GONE, 0, "the VM ended while the file was on its way");
    } else if (err->code == ERR_GUEST_TIMEOUT && vmm_pause_since(vmm, machine, file->changes)) {
        *err = (struct error){0};
        error_set(err, ERR_VM_PAUSED, 0, "the VM was paused while the file was on its way");
    } else if (err->code == ERR_GUEST_TIMEOUT) {
        vmm_watchdog_suspect(vmm, machine);
    }
}

/* Of what begin() began, or could not. Returns `result`. */
static int end(struct vmm_file *file, int result, struct error *err)
{
    if (file->machine == NULL)
        return result;
    if (file->conn != NULL)
        file->vmm->hypervisor->disconnect(file->vmm, file->machine, file->conn, file->port);
    vmm_use_end(file->vmm, file->machine);
    if (result < 0)
        explain(file, err);
    vmm_machine_unref(file->vmm, file->machine);
    return result;
}

static int begin(struct vmm_file *file, const char *owner, const char *id, struct error *err)
{
    if (vmm_use_find(file->vmm, owner, id, "its files need a running one", &file->machine, err) < 0)
        return -1;
    vmm_use_begin(file->vmm, file->machine);
    return connect_to(file, err);
}

int vmm_file_put(struct vmm *vmm, const char *owner, const char *id,
                 const struct vsock_file_put *what, const struct vsock_source *source,
                 struct error *err)
{
    struct vmm_file file = {.vmm = vmm};
    int result = begin(&file, owner, id, err);
    if (result == 0)
        result = vsock_file_put(file.conn, what, source, file.machine->gone, err);
    return end(&file, result, err);
}

int vmm_archive_put(struct vmm *vmm, const char *owner, const char *id, const char *path,
                    bool parents, const struct vsock_source *source, struct vsock_unpacked *ret,
                    struct error *err)
{
    struct vmm_file file = {.vmm = vmm};
    int result = begin(&file, owner, id, err);
    if (result == 0)
        result = vsock_archive_put(file.conn, path, parents, source, file.machine->gone, ret, err);
    return end(&file, result, err);
}

int vmm_file_remove(struct vmm *vmm, const char *owner, const char *id, const char *path,
                    bool recursive, struct error *err)
{
    struct vmm_file file = {.vmm = vmm};
    int result = begin(&file, owner, id, err);
    if (result == 0)
        result = vsock_file_remove(file.conn, path, recursive, file.machine->gone, err);
    return end(&file, result, err);
}

int vmm_file_list(struct vmm *vmm, const char *owner, const char *id,
                  const struct vmm_file_page *page, const struct vsock_lister *lister,
                  char ret_next[static VSOCK_NAME_HEX_SIZE], struct error *err)
{
    struct vmm_file file = {.vmm = vmm};
    int result = begin(&file, owner, id, err);
    if (result == 0)
        result = vsock_file_list(file.conn, page->path, page->after, page->limit, lister,
                                 file.machine->gone, ret_next, err);
    return end(&file, result, err);
}

static int open_it(struct vmm_file *file, const char *path, struct vsock_file_info *ret_info,
                   struct error *err)
{
    if (ret_info != NULL)
        return vsock_file_open(file->conn, path, file->machine->gone, ret_info, err);
    return vsock_archive_open(file->conn, path, file->machine->gone, &file->archive, err);
}

int vmm_file_open(struct vmm *vmm, const char *owner, const char *id, const char *path,
                  struct vsock_file_info *ret_info, struct vmm_file **ret, struct error *err)
{
    struct vmm_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a file of a VM");
    file->vmm = vmm;
    int result = begin(file, owner, id, err);
    if (result == 0)
        result = open_it(file, path, ret_info, err);
    if (result == 0) {
        *ret = file;
        return 0;
    }
    end(file, result, err);
    free(file);
    return -1;
}

int vmm_file_read(struct vmm_file *file, int64_t offset, int64_t length,
                  const struct vsock_sink *sink, struct error *err)
{
    int result = file->archive != 0 ? vsock_archive_read(file->conn, file->archive, sink, err)
                                    : vsock_file_read(file->conn, offset, length, sink, err);
    result = end(file, result, err);
    free(file);
    return result;
}

void vmm_file_close(struct vmm_file *file)
{
    struct error none = {0};
    if (file != NULL)
        end(file, 0, &none);
    free(file);
}
