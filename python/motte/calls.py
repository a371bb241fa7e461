"""What can be asked for: a function an operation, by the names of openapi.yaml. The clients send
these; neither knows a route or a field."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from .call import Call, Page, given, nothing, reads, reads_list, unread
from .models import (
    AuditEntry,
    Capabilities,
    Console,
    ExecResult,
    Idle,
    Images,
    IsolationReport,
    Snapshot,
    VmInfo,
    VmStats,
)

ASYNC: Mapping[str, str] = {"Prefer": "respond-async"}
WAIT_MAX_S = 60


class VmOptions(TypedDict, total=False):
    """The fields of POST /vms. With `snapshot`, what the VM is made of is the snapshot's."""

    id: str
    image: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    seccomp: str
    ttl_s: int
    idle: Idle
    on_unresponsive: str
    labels: Mapping[str, str]
    snapshot: str | Snapshot
    cold: bool


class ForkOptions(TypedDict, total=False):
    """The fields of POST /vms/{id}/fork."""

    count: int
    ttl_s: int
    labels: Mapping[str, str]


class ExecOptions(TypedDict, total=False):
    """The fields of an exec but for the command itself."""

    env: Mapping[str, str]
    cwd: str
    user: str
    stdin: str
    timeout_ms: int


def create_vm(options: VmOptions, respond_async: bool) -> Call[VmInfo]:
    body: dict[str, Any] = given(**options)
    if isinstance(snapshot := body.get("snapshot"), Snapshot):
        body["snapshot"] = snapshot.id
    if isinstance(idle := body.get("idle"), Idle):
        body["idle"] = dataclasses.asdict(idle)
    headers = ASYNC if respond_async else {}
    return Call("createVm", reads(VmInfo), body=body, headers=headers)


def list_vms(label: str | None, state: str | None, cursor: str | None) -> Call[Page[VmInfo]]:
    query = given(label=label, state=state, cursor=cursor)
    return Call("listVms", reads_list(VmInfo, "vms"), query=query)


def get_vm(vm_id: str) -> Call[VmInfo]:
    return Call("getVm", reads(VmInfo), (vm_id,))


def delete_vm(vm_id: str) -> Call[None]:
    return Call("deleteVm", nothing, (vm_id,))


def patch_vm(
    vm_id: str, labels: Mapping[str, str | None] | None, ttl_s: int | None
) -> Call[VmInfo]:
    return Call("patchVm", reads(VmInfo), (vm_id,), given(labels=labels, ttl_s=ttl_s))


def wait_for_vm(vm_id: str, state: str, timeout_s: float) -> Call[VmInfo]:
    """For at most a minute."""
    query: dict[str, str | int | Sequence[str]] = {
        "state": state,
        "timeout_s": math.ceil(min(timeout_s, WAIT_MAX_S)),
    }
    return Call("waitForVm", reads(VmInfo), (vm_id,), query=query, extra_s=WAIT_MAX_S)


def get_vm_stats(vm_id: str) -> Call[VmStats]:
    return Call("getVmStats", reads(VmStats), (vm_id,))


def keep_vm_alive(vm_id: str, ttl_s: int | None) -> Call[VmInfo]:
    return Call("keepVmAlive", reads(VmInfo), (vm_id,), given(ttl_s=ttl_s))


def pause_vm(vm_id: str) -> Call[VmInfo]:
    return Call("pauseVm", reads(VmInfo), (vm_id,))


def resume_vm(vm_id: str) -> Call[VmInfo]:
    return Call("resumeVm", reads(VmInfo), (vm_id,))


def snapshot_vm(vm_id: str, labels: Mapping[str, str] | None) -> Call[Snapshot]:
    return Call("snapshotVm", reads(Snapshot), (vm_id,), given(labels=labels))


def fork_vm(vm_id: str, options: ForkOptions) -> Call[Page[VmInfo]]:
    return Call("forkVm", reads_list(VmInfo, "vms"), (vm_id,), given(**options))


def command_fields(command: str | Sequence[str]) -> dict[str, object]:
    """A string is for `/bin/sh -c`, a sequence is a program and its arguments."""
    return {"shell": command} if isinstance(command, str) else {"argv": list(command)}


def exec_in_vm(vm_id: str, command: str | Sequence[str], options: ExecOptions) -> Call[ExecResult]:
    body = {**command_fields(command), **given(**options)}
    extra_s = options.get("timeout_ms", 0) / 1000
    return Call("execInVm", reads(ExecResult), (vm_id,), body, extra_s=extra_s)


def get_isolation(vm_id: str) -> Call[IsolationReport]:
    return Call("getIsolation", reads(IsolationReport), (vm_id,))


def get_console(vm_id: str) -> Call[Console]:
    return Call("getConsole", reads(Console), (vm_id,))


def follow_console(vm_id: str) -> Call[None]:
    return Call("getConsole", unread, (vm_id,), query={"follow": "true"}, stream=True)


def get_audit(vm_id: str, cursor: str | None) -> Call[Page[AuditEntry]]:
    query = given(cursor=cursor)
    return Call("getAudit", reads_list(AuditEntry, "entries"), (vm_id,), query=query)


def watch_events(
    after: int | None, vm_id: str | None, kinds: Sequence[str], follow: bool
) -> Call[None]:
    query = given(after=after, vm=vm_id, follow=None if follow else "false")
    return Call("watchEvents", unread, query={**query, "kind": list(kinds)}, stream=True)


def list_snapshots(label: str | None, cursor: str | None) -> Call[Page[Snapshot]]:
    query = given(label=label, cursor=cursor)
    return Call("listSnapshots", reads_list(Snapshot, "snapshots"), query=query)


def get_snapshot(snapshot_id: str) -> Call[Snapshot]:
    return Call("getSnapshot", reads(Snapshot), (snapshot_id,))


def delete_snapshot(snapshot_id: str) -> Call[None]:
    return Call("deleteSnapshot", nothing, (snapshot_id,))


def list_images() -> Call[Images]:
    return Call("listImages", reads(Images))


def get_capabilities() -> Call[Capabilities]:
    return Call("getCapabilities", reads(Capabilities))
