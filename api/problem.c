/* Errors as clients see them (RFC 9457): the one table from error_code to status, title and advice.
 */
#include "api/internal.h"

#include <errno.h>

#define RETRY "Retry after the time in Retry-After; the request had no effect."
#define DOCTOR "Run `motted doctor` on the host: it says what is missing and what to do."
#define REPORT "This is a defect of Motte: report it with the request_id and the log's line."

static const struct api_problem_kind kinds[ERR_COUNT] = {
    [ERR_INTERNAL] = {500, "Internal error", REPORT, 0},
    [ERR_NO_MEMORY] = {503, "Out of memory", "Retry later, or give the service more memory.", 5},
    [ERR_SYSTEM] = {500, "System call failed", DOCTOR, 0},
    [ERR_CONFIG] = {500, "Bad configuration", "Correct the service's configuration and restart it.",
                    0},
    [ERR_JSON] = {400, "Invalid JSON", "Send one complete JSON object in UTF-8, without U+0000.",
                  0},
    [ERR_FIELD_UNKNOWN] = {400, "Unknown field", "Remove the field, or check its spelling.", 0},
    [ERR_FIELD_TYPE] = {400, "Wrong type", "Send the type that openapi.yaml names.", 0},
    [ERR_FIELD_RANGE] = {400, "Out of range",
                         "Stay within the limits; GET /capabilities shows this host's.", 0},
    [ERR_FIELD_MISSING] = {400, "Missing field", "Add the field.", 0},
    [ERR_FIELD_VALUE] = {400, "Invalid value", "Use one of the values that openapi.yaml names.", 0},
    [ERR_ID_INVALID] = {400, "Invalid id", "Use 1 to 64 of A-Z a-z 0-9 _ - as id.", 0},
    [ERR_NETWORKING_REFUSED] = {400, "Networking refused",
                                "Leave enable_networking out: VMs have no network, and talk to the "
                                "host through exec.",
                                0},
    [ERR_BODY_TOO_LARGE] = {413, "Body too large", "Send a smaller body.", 0},
    [ERR_MEDIA_TYPE] = {415, "Unsupported media type",
                        "Send the body as Content-Type: application/json, not compressed.", 0},
    [ERR_BAD_REQUEST] = {400, "Bad request", "Send a request that HTTP/1.1 allows.", 0},
    [ERR_TARGET_TOO_LONG] = {414, "URI too long", "Shorten the path or its query.", 0},
    [ERR_QUERY] = {400, "Invalid query", "Use the query parameters that openapi.yaml names.", 0},
    [ERR_ROUTE_UNKNOWN] = {404, "No such route", "GET /openapi.yaml lists the routes.", 0},
    [ERR_METHOD] = {405, "Method not allowed", "Use a method from the Allow header.", 0},
    [ERR_UNAUTHORIZED] = {401, "Unauthorized",
                          "Send `Authorization: Bearer <token>` with a token of this service.", 0},
    [ERR_FORBIDDEN] = {403, "Forbidden", "Use a token that has this right.", 0},
    [ERR_VM_UNKNOWN] = {404, "No such VM", "GET /vms lists your VMs.", 0},
    [ERR_VM_GONE] = {404, "The VM has ended", "Create a new VM; the id is free.", 0},
    [ERR_VM_NOT_RUNNING] = {409, "The VM is not running",
                            "Wait until GET /vms/{id} says running; or delete it.", 0},
    [ERR_VM_PAUSED] = {409, "The VM is paused", "POST /vms/{id}/resume, then try again.", 0},
    [ERR_SNAPSHOT_UNKNOWN] = {404, "No such snapshot", "GET /snapshots lists your snapshots.", 0},
    [ERR_SNAPSHOT_IN_USE] = {409, "The snapshot is in use",
                             "Delete the VMs that were restored from it first; detail counts them.",
                             0},
    [ERR_VM_AMBIGUOUS] = {409, "Several tenants have such a VM",
                          "Ask as the one whose you mean: with a token of that tenant, or over the "
                          "socket as that user.",
                          0},
    [ERR_SNAPSHOT_BUSY] = {409, "A snapshot of the VM is being made",
                           "Wait until it is done, then try again.", 0},
    [ERR_KEY_BUSY] = {409, "The key is in use",
                      "Send the same request again in a moment: it gets the first one's answer.",
                      0},
    [ERR_KEY_REUSED] =
        {422, "The key is another request's",
         "Use a new Idempotency-Key for each request, and the same one only to repeat "
         "it as it was.",
         0},
    [ERR_KEY_LOST] = {409, "The answer is lost",
                      "Look what there is (GET) before you ask again, with a new Idempotency-Key.",
                      0},
    [ERR_ID_TAKEN] = {409, "The id is taken",
                      "Choose another id, leave it out, or delete the VM that has it.", 0},
    [ERR_IMAGE_UNKNOWN] = {404, "No such image",
                           "GET /images lists them; `motted image` adds one on the host.", 0},
    [ERR_IMAGE_CHANGED] = {500, "An image's file has changed",
                           "Remove the image and add it again on the host.", 0},
    [ERR_SECCOMP_LEVEL] = {403, "Seccomp level refused", "Use minimal or basic.", 0},
    [ERR_SNAPSHOT_MISMATCH] =
        {409, "The snapshot does not fit",
         "See detail: it was made by another host, hypervisor or image, or of "
         "another shape. Make a new one here.",
         0},
    [ERR_SNAPSHOT_DAMAGED] = {500, "The snapshot is damaged",
                              "Its files are not what was written: delete it, and check the disk.",
                              0},
    [ERR_DISK_FULL] = {507, "No space on the state disk",
                       "Free space on the host, or delete snapshots.", 0},
    [ERR_CAPACITY] = {503, "Capacity exhausted",
                      "Delete VMs, ask for a smaller one, or retry later.", 10},
    [ERR_QUOTA] = {429, "The tenant's quota is used up",
                   "Delete VMs or end commands of yours, or ask for less.", 10},
    [ERR_RATE] = {429, "Too many requests", RETRY, 1},
    [ERR_BUSY] = {503, "Busy", RETRY, 1},
    [ERR_SHUTTING_DOWN] = {503, "Shutting down",
                           "Retry after the time in Retry-After; see detail for what may go on.",
                           5},
    [ERR_CORDONED] = {503, "Cordoned",
                      "An administrator lets no new VM start here: use another host, or ask him.",
                      60},
    [ERR_CANCELLED] = {409, "Cancelled", "The VM was deleted meanwhile; create a new one.", 0},
    [ERR_HYPERVISOR_MISSING] = {503, "No usable hypervisor", DOCTOR, 60},
    [ERR_HYPERVISOR] = {502, "The hypervisor refused",
                        "See detail; if it repeats, run `motted doctor` on the host.", 0},
    [ERR_HYPERVISOR_TIMEOUT] =
        {504, "The hypervisor does not answer",
         "GET /vms/{id} says how the VM is; one whose hypervisor hangs is ended by itself.", 0},
    [ERR_LAUNCH] = {502, "Launch failed", DOCTOR, 0},
    [ERR_VMM_EXITED] = {502, "The VM's process ended",
                        "Create a new VM; the old one's record has the reason.", 0},
    [ERR_GUARD] = {500, "A guard could not be set", DOCTOR, 0},
    [ERR_CGROUP] = {500, "The resource limits could not be set", DOCTOR, 0},
    [ERR_FIREWALL_PRIVILEGE] = {500, "No privilege for the firewall",
                                "Start motted as root with CAP_NET_ADMIN and CAP_NET_RAW.", 0},
    [ERR_FIREWALL_LOCK] = {503, "The firewall is locked",
                           "Another tool holds /run/xtables.lock: end it, then retry.", 5},
    [ERR_FIREWALL_TABLE] = {500, "The kernel lacks a firewall table",
                            "Load ip_tables with iptable_security or iptable_filter (and ip6).", 0},
    [ERR_FIREWALL_COMMIT] = {500, "The kernel refused a firewall rule",
                             "See the kernel's log (dmesg) on the host.", 0},
    [ERR_FIREWALL_DRIFT] = {503, "The firewall is out of sync",
                            "Another tool changed Motte's rules: keep it away; they are repaired.",
                            5},
    [ERR_BOOT_TIMEOUT] =
        {504, "The guest did not start in time",
         "Try again when the host is less busy; if that does not help, see detail for the last "
         "console lines, and try more memory or another image.",
         0},
    [ERR_GUEST_PROTOCOL] = {502, "The guest broke the protocol",
                            "Delete the VM: its agent is damaged or hostile.", 0},
    [ERR_GUEST_CLOSED] = {502, "The guest closed the connection",
                          "GET /vms/{id} says whether the VM still runs.", 0},
    [ERR_GUEST_TIMEOUT] = {504, "The guest does not answer", "Retry once, then delete the VM.", 0},
    [ERR_GUEST_REFUSED] = {422, "The guest refused", "See detail for the agent's words.", 0},
    [ERR_EXEC_TIMEOUT] = {504, "The command ran out of time",
                          "Raise timeout_ms; what the command wrote so far is in context.", 0},
    [ERR_EXEC_UNKNOWN] = {404, "No such command", "GET /vms/{id}/execs lists those of the VM.", 0},
    [ERR_EXEC_LOST] = {410, "The command is lost",
                       "It does not run any more: begin it again, if that is safe.", 0},
    [ERR_EXEC_ENDED] = {409, "The command has ended",
                        "GET /vms/{id}/execs/{eid} says how; begin another one.", 0},
    [ERR_EXEC_INPUT] = {409, "Input in the wrong place",
                        "Go on at context.offset; where input has ended, nothing can be added.", 0},
    [ERR_EXEC_NO_TERMINAL] = {409, "The command has no terminal",
                              "Begin it with `pty` to give it one.", 0},
    [ERR_FILE_UNKNOWN] = {404, "No such file in the VM",
                          "Check the path; parents=true makes the directories that lead to it.", 0},
    [ERR_GUEST_FULL] = {507, "No room in the VM",
                        "Remove files in the VM, or create one with more memory or disk_mib.", 0},
    [ERR_ARCHIVE] =
        {422, "No archive that can be unpacked",
         "See detail for the member; send an uncompressed tar of files, directories and "
         "links that stay in it.",
         0},
    [ERR_RANGE] = {416, "No such part of the file", "Content-Range says how long the file is.", 0},
    [ERR_DIGEST] =
        {400, "The bytes are not those of the digest",
         "Send it again. No file has been written; members of an archive have, where its "
         "directory was there before.",
         0},
    [ERR_STORE] = {500, "The inventory failed", "See the service's log and the state disk.", 0},
    [ERR_STORE_BUSY] = {503, "The inventory is locked", RETRY, 1},
    [ERR_STORE_FULL] = {507, "No space for the inventory",
                        "Free space on the state disk; deleting VMs still works.", 0},
    [ERR_STORE_NEWER] = {500, "The inventory is from a newer version",
                         "Install the newer version of Motte again.", 0},
    [ERR_NOT_FOUND] = {404, "Not found", "Check the name.", 0},
    [ERR_PRIV_REFUSED] = {500, "The root half refused", REPORT, 0},
    [ERR_PRIV_LOST] = {503, "The root half is gone",
                       "The service restarts by itself under systemd; retry then.", 5},
};

const struct api_problem_kind *api_problem_kind(enum error_code code)
{
    bool known = (unsigned)code < ERR_COUNT && kinds[code].title != NULL;
    return &kinds[known ? code : ERR_INTERNAL];
}

static char *problem_text(const struct error *err, const char *request_id, cJSON *context)
{
    const struct api_problem_kind *kind = api_problem_kind(err->code);
    char type[64];
    snprintf(type, sizeof(type), "urn:motte:error:%s", error_code_name(err->code));
    cleanup_json cJSON *json = cJSON_CreateObject();
    bool failed = json == NULL || json_add_string(json, "type", type) < 0 ||
                  json_add_string(json, "title", kind->title) < 0 ||
                  json_add_number(json, "status", kind->status) < 0 ||
                  json_add_bytes(json, "detail", err->msg, strlen(err->msg)) < 0 ||
                  json_add_string(json, "code", error_code_name(err->code)) < 0 ||
                  json_add_string(json, "remediation", kind->remediation) < 0 ||
                  json_add_string(json, "request_id", request_id) < 0;
    if (context != NULL && (failed || json_add(json, "context", context) < 0)) {
        if (failed)
            cJSON_Delete(context);
        failed = true;
    }
    return failed ? NULL : json_print(json);
}

/* Whatever they were wanted for, descriptors that are used up are a want of room, which passes. */
static struct error as_shown(const struct error *err)
{
    struct error shown = *err;
    if (err->sys == EMFILE || err->sys == ENFILE)
        shown.code = ERR_CAPACITY;
    return shown;
}

void api_problem(const struct error *failure, const char *request_id, cJSON *context,
                 struct api_response *ret)
{
    const struct error shown = as_shown(failure), *err = &shown;
    static const char fallback[] =
        "{\"type\":\"urn:motte:error:no_memory\",\"title\":\"Out of memory\",\"status\":503,"
        "\"code\":\"no_memory\"}";
    const struct api_problem_kind *kind = api_problem_kind(err->code);
    ret->code = err->code;
    ret->status = kind->status;
    ret->retry_after_s = kind->retry_after_s;
    ret->challenge = err->code == ERR_UNAUTHORIZED;
    ret->content_type = "application/problem+json";
    ret->body = problem_text(err, request_id, context);
    if (ret->body != NULL) {
        ret->body_len = strlen(ret->body);
        return;
    }
    ret->code = ERR_NO_MEMORY;
    ret->status = api_problem_kind(ERR_NO_MEMORY)->status;
    ret->body_static = fallback;
    ret->body_len = sizeof(fallback) - 1;
}
