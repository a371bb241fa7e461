/* The engine: what is shared by all VMs. */
#include "vmm/execs.h"
#include "vmm/pool.h"
#include "vmm/template.h"

#include <curl/curl.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

_Static_assert((int)PRIV_TOKEN_SIZE == (int)WIRE_TOKEN_SIZE, "one token");

static void init_locks(struct vmm *vmm)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&vmm->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&vmm->lock, NULL);
}

static void release(struct vmm *vmm)
{
    cleanup_close_func(&vmm->watch);
    cleanup_close_func(&vmm->wake);
    pthread_mutex_destroy(&vmm->lock);
    pthread_cond_destroy(&vmm->changed);
    vmm_pools_free(vmm->pools);
    vmm_templates_free(vmm->templates);
    vmm_execs_free(vmm->execs);
    curl_global_cleanup();
    free(vmm);
}

static int open_all(struct vmm *vmm, struct error *err)
{
    vmm->execs = vmm_execs_new(err);
    if (vmm->execs == NULL || id_boot_read(vmm->boot, err) < 0 ||
        priv_host(vmm->config.priv, &vmm->host, err) < 0)
        return -1;
    vmm->hypervisor = vmm->host.hypervisor == PRIV_FIRECRACKER ? &vmm_firecracker : &vmm_qemu;
    vmm->watch = epoll_create1(EPOLL_CLOEXEC);
    vmm->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vmm->watch < 0 || vmm->wake < 0)
        return error_set(err, ERR_SYSTEM, errno, "starting to watch VMs");
    if (vmm_monitor_start(vmm, err) < 0)
        return -1;
    if (vmm_template_start(vmm, err) == 0)
        return 0;
    vmm_monitor_stop(vmm);
    return -1;
}

int vmm_open(const struct vmm_config *config, struct vmm **ret, struct error *err)
{
    struct vmm *vmm = calloc(1, sizeof(*vmm));
    if (vmm != NULL) {
        vmm->pools = vmm_pools_new();
        vmm->templates = vmm_templates_new();
    }
    if (vmm == NULL || vmm->pools == NULL || vmm->templates == NULL) {
        if (vmm != NULL) {
            vmm_pools_free(vmm->pools);
            vmm_templates_free(vmm->templates);
        }
        free(vmm);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory at start");
    }
    init_locks(vmm);
    vmm->config = *config;
    vmm->defaults = config->defaults;
    vmm_pools_set(vmm, &config->pools);
    vmm->pause_timeout_ms = VMM_PAUSE_TIMEOUT_MS;
    vmm->snapshot_timeout_ms = VMM_SNAPSHOT_TIMEOUT_MS;
    vmm->watch = vmm->wake = -1;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (open_all(vmm, err) < 0) {
        release(vmm);
        return -1;
    }
    *ret = vmm;
    return 0;
}

void vmm_drain(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    vmm->draining = true;
    pthread_mutex_unlock(&vmm->lock);
    vmm_execs_drain(vmm);
    store_wait_no_more(vmm->config.store);
}

void vmm_free(struct vmm *vmm)
{
    if (vmm == NULL)
        return;
    vmm_execs_close(vmm);
    vmm_template_stop(vmm);
    vmm_monitor_stop(vmm);
    vmm_forget_free(vmm);
    while (vmm->machines != NULL)
        vmm_machine_remove(vmm, vmm->machines);
    release(vmm);
}

void vmm_host(struct vmm *vmm, struct priv_host *ret)
{
    pthread_mutex_lock(&vmm->lock);
    *ret = vmm->host;
    pthread_mutex_unlock(&vmm->lock);
}

void vmm_defaults_set(struct vmm *vmm, const struct vmm_defaults *defaults)
{
    pthread_mutex_lock(&vmm->lock);
    vmm->defaults = *defaults;
    pthread_mutex_unlock(&vmm->lock);
}

void vmm_defaults(struct vmm *vmm, struct vmm_defaults *ret)
{
    pthread_mutex_lock(&vmm->lock);
    *ret = vmm->defaults;
    pthread_mutex_unlock(&vmm->lock);
}

size_t vmm_drops(struct vmm *vmm, struct priv_drops *ret, size_t max)
{
    struct error ignored = {0};
    size_t count = 0;
    while (count < max &&
           priv_drops(vmm->config.priv, (uint32_t)count, &ret[count], &ignored) == 0 &&
           ret[count].instance[0] != '\0')
        count++;
    return count;
}
