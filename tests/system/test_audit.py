"""R24, R25: what a VM's audit tells, and that a blocked call by a real VMM is in it."""

import datetime
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import host, inject
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total

SOCKET, EXECVE = (41, "socket"), (59, "execve")  # on x86_64
AF_INET, SOCK_STREAM = 2, 1


def audit_of(client: Client, vm_id: str, **query: int | str) -> list[dict[str, Any]]:
    answer = client.expect(200, "GET", f"/vms/{vm_id}/audit", params=query).json()
    entries: list[dict[str, Any]] = answer["entries"]
    return entries


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["kind"] for entry in entries]


def detail_of(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [entry["detail"] for entry in entries if entry["kind"] == kind]
    assert len(found) == 1, entries
    detail: dict[str, Any] = found[0]
    return detail


def vmm_of(daemon: Daemon, instance: str) -> int:
    for pid in daemon.vmms():
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            if instance in file.read():
                return pid
    raise LookupError(f"no process of {instance}")


def misbehave(daemon: Daemon, instance: str, thread: str, number: int, *arguments: int) -> None:
    pid = vmm_of(daemon, instance)
    inject.syscall(inject.thread_named(pid, thread), number, *arguments)


def test_R25_the_audit_tells_a_vms_life_and_is_kept_after_it(
    client: Client, backend: Backend
) -> None:
    before = datetime.datetime.now(datetime.UTC)
    vm = client.create(id="told", memory_mib=backend.memory_mib)
    alive = audit_of(client, "told")
    assert kinds(alive) == ["created", "guards_checked", "running"]
    assert detail_of(alive, "created") == {"hypervisor": vm["hypervisor"], "seccomp": "minimal"}
    assert detail_of(alive, "guards_checked") == {"without": []}
    client.exec("told", ["/bin/echo", "secret-word"])
    client.delete("told")
    entries = audit_of(client, "told")
    assert entries[:3] == alive
    assert kinds(entries[3:]) == ["ended"]
    assert detail_of(entries, "ended") == {"state": "exited", "reason": "deleted"}
    assert "secret-word" not in str(entries)
    for entry in entries:
        assert (entry["id"], entry["instance"]) == ("told", vm["instance"])
        assert entry["owner"] == vm["owner"]
        at = datetime.datetime.fromisoformat(entry["at"].replace("Z", "+00:00"))
        assert datetime.timedelta(seconds=-1) <= at - before < datetime.timedelta(minutes=5)
    assert [e["seq"] for e in entries] == sorted({e["seq"] for e in entries})


def test_R25_an_audit_is_read_in_pages(client: Client, backend: Backend) -> None:
    client.create(id="paged", memory_mib=backend.memory_mib)
    client.delete("paged")
    whole = audit_of(client, "paged")
    assert len(whole) == 4
    seen: list[dict[str, Any]] = []
    path: str | None = "/vms/paged/audit?limit=3"
    while path is not None:
        response = client.expect(200, "GET", path)
        page = response.json()
        assert len(page["entries"]) <= 3
        seen += page["entries"]
        more = page["next_cursor"] is not None
        assert more == ("next" in response.links)
        path = str(response.links["next"]["url"]) if more else None
    assert seen == whole
    assert audit_of(client, "paged", cursor=whole[1]["seq"]) == whole[2:]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "cursor=-1", "cursor=", "cursor=1&cursor=1", "kind=ended"],
)
def test_R25_a_bad_query_is_refused(client: Client, query: str) -> None:
    client.problem(400, "invalid_query", "GET", f"/vms/anybody/audit?{query}")


def test_R25_nobody_has_no_audit(client: Client) -> None:
    client.problem(404, "vm_not_found", "GET", "/vms/nobody/audit")


def test_R24_a_guard_found_wrong_is_in_the_audit(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="loose", memory_mib=backend.memory_mib)
    limits = [
        Path(folder) / "pids.max"
        for folder in host.cgroups_named(daemon.cgroup)
        if (Path(folder) / "pids.max").exists()
    ]
    assert len(limits) == 1
    limits[0].write_text("max", encoding="utf-8")
    assert not client.expect(200, "GET", "/vms/loose/isolation").json()["ok"]
    entries = audit_of(client, "loose")
    assert detail_of(entries, "guard_wrong") == {"line": "cgroup_pids", "state": "wrong"}


def test_R24_a_guard_left_out_is_in_the_audit(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(start(["--without=firewall"]))
    client.create(id="bare", memory_mib=backend.memory_mib)
    entries = audit_of(client, "bare")
    assert detail_of(entries, "guards_checked") == {"without": ["firewall"]}
    client.delete("bare")


@pytest.mark.testguest
@pytest.mark.parametrize(
    ("thread", "shown", "call"),
    [
        ("firecracker", "main", SOCKET),
        ("fc_vcpu 0", "fc_vcpu 0", SOCKET),
        ("fc_api", "fc_api", EXECVE),
    ],
)
def test_R24_a_blocked_call_of_firecracker_is_seen_and_named(
    daemon: Daemon, client: Client, thread: str, shown: str, call: tuple[int, str]
) -> None:
    number, name = call
    client.create(id="neighbour", memory_mib=128)
    vm = client.create(id="evil", memory_mib=128)
    _, before = scrape(client)
    misbehave(daemon, vm["instance"], thread, number, AF_INET, SOCK_STREAM, 0)
    why = client.wait_gone("evil")["detail"]
    assert "exited (seccomp)" in why
    assert f"{name} ({number}), in thread {shown}" in why
    entries = audit_of(client, "evil")
    assert kinds(entries[3:]) == ["seccomp_violation", "vmm_exited", "ended"]
    assert detail_of(entries, "seccomp_violation") == {
        "number": number,
        "syscall": name,
        "thread": shown,
        "known_by": "exit_status",
    }
    assert detail_of(entries, "vmm_exited")["exit_code"] == 148
    assert detail_of(entries, "ended") == {"state": "exited", "reason": "seccomp"}
    _, after = scrape(client)
    family = "motte_seccomp_violations_total"
    assert total(after, family) - total(before, family) == 1
    assert total(after, family, syscall=name) - total(before, family, syscall=name) == 1
    assert total(after, "motte_vm_ends_total", reason="seccomp") >= 1
    assert client.exec("neighbour", ["/bin/echo", "well"]).out == "well\n"


@pytest.mark.testguest
def test_R24_of_an_adopted_vm_the_log_tells(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The daemon that started it is gone, so nobody learns how it exits."""
    daemon = start()
    vm = connect(daemon).create(id="orphan", memory_mib=backend.memory_mib)
    daemon.stop()
    client = connect(daemon.start())
    misbehave(daemon, vm["instance"], "fc_vcpu 0", SOCKET[0], AF_INET, SOCK_STREAM, 0)
    why = client.wait_gone("orphan")["detail"]
    assert "exited (seccomp)" in why
    assert "so its log says" in why
    entries = audit_of(client, "orphan")
    assert kinds(entries[3:]) == ["adopted", "seccomp_violation", "vmm_exited", "ended"]
    assert detail_of(entries, "seccomp_violation") == {
        "number": SOCKET[0],
        "syscall": "socket",
        "thread": "fc_vcpu 0",
        "known_by": "log",
    }
    _, samples = scrape(client)
    assert total(samples, "motte_seccomp_violations_total", syscall="socket") == 1


@pytest.mark.core
@pytest.mark.linux
def test_R24_a_blocked_call_is_seen_with_linux_guests(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """Firecracker names the call in its log; QEMU dies by the signal and says nothing."""
    vm = client.create(id="evil", memory_mib=backend.memory_mib)
    inject.syscall(vmm_of(daemon, vm["instance"]), SOCKET[0], AF_INET, SOCK_STREAM, 0)
    assert "exited (seccomp)" in client.wait_gone("evil")["detail"]
    entries = audit_of(client, "evil")
    assert kinds(entries[3:]) == ["seccomp_violation", "vmm_exited", "ended"]
    named = {"number": SOCKET[0], "syscall": "socket", "thread": "main"}
    silent = {"number": None, "syscall": None, "thread": None}
    assert detail_of(entries, "seccomp_violation") == {
        **(silent if backend.emulated else named),
        "known_by": "exit_status",
    }
    ended = detail_of(entries, "vmm_exited")
    assert ended["signal"] == (signal.SIGSYS if backend.emulated else None)
    assert ended["exit_code"] == (None if backend.emulated else 148)


def test_R24_a_killed_vmm_is_no_violation(daemon: Daemon, client: Client, backend: Backend) -> None:
    vm = client.create(id="shot", memory_mib=backend.memory_mib)
    _, before = scrape(client)
    os.kill(vmm_of(daemon, vm["instance"]), signal.SIGKILL)
    assert "vmm_crash" in client.wait_gone("shot")["detail"]
    entries = audit_of(client, "shot")
    assert kinds(entries[3:]) == ["vmm_exited", "ended"]
    assert detail_of(entries, "vmm_exited")["signal"] == signal.SIGKILL
    _, after = scrape(client)
    family = "motte_seccomp_violations_total"
    assert total(after, family) == total(before, family)
