"""How VMs are killed, and what must then be told of it."""

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import host, inject
from .backend import Backend
from .client import Client
from .daemon import Daemon
from .metrics import scrape, total

SOCKET, AF_INET, SOCK_STREAM = 41, 2, 1  # on x86_64


def vmm_of(daemon: Daemon, instance: str) -> int:
    return next(
        pid
        for pid in daemon.vmms()
        if instance in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    )


def cgroup_file(daemon: Daemon, instance: str, *names: str) -> Path:
    """The first of these that there is: the versions of cgroups name them differently."""
    return next(
        Path(folder) / name
        for folder in host.cgroups_named(daemon.cgroup)
        if folder.endswith(instance)
        for name in names
        if (Path(folder) / name).exists()
    )


@dataclass(frozen=True)
class Victim:
    """A VM, and what can be done to it."""

    daemon: Daemon
    client: Client
    id: str
    instance: str

    def do(self, *argv: str) -> None:
        """A command that may be its last."""
        self.client.request(
            "POST", f"/vms/{self.id}/exec", json={"argv": argv, "timeout_ms": 60_000}
        )

    def shell(self, script: str) -> None:
        self.do("/bin/sh", "-c", script)

    def signal(self, number: int) -> None:
        os.kill(vmm_of(self.daemon, self.instance), number)

    def squeeze(self) -> None:
        """The host lets it have little more memory than it has now."""
        usage = cgroup_file(self.daemon, self.instance, "memory.usage_in_bytes", "memory.current")
        limit = cgroup_file(self.daemon, self.instance, "memory.limit_in_bytes", "memory.max")
        now = int(usage.read_text(encoding="ascii"))
        limit.write_text(str(now + (4 << 20)), encoding="ascii")


def says_and_resets(*words: str) -> Callable[[Victim], None]:
    def act(victim: Victim) -> None:
        victim.do("say", *words)
        victim.do("reboot")

    return act


def squeezed(*argv: str) -> Callable[[Victim], None]:
    def act(victim: Victim) -> None:
        victim.squeeze()
        victim.do(*argv)

    return act


def misbehaves(victim: Victim) -> None:
    pid = vmm_of(victim.daemon, victim.instance)
    inject.syscall(pid, SOCKET, AF_INET, SOCK_STREAM, 0)


def hogs(victim: Victim) -> None:
    victim.squeeze()
    victim.shell("python3 -c 'bytearray(b\"x\") * (200 << 20)'")


SYSRQ = "echo 1 >/proc/sys/kernel/sysrq; echo {} >/proc/sysrq-trigger; sleep 60"
POWER_OFF = "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'"
PANIC_ON_OOM = (
    "echo 2 >/proc/sys/vm/panic_on_oom; "
    "python3 -c 'a = []\nwhile True: a.append(bytearray(b\"x\") * (4 << 20))'"
)


@dataclass(frozen=True)
class Death:
    act: Callable[[Victim], None]
    reason: str
    known_by: str
    adopted_known_by: str
    adopted_reason: str | None = None  # where less is known
    console: str = ""


# On real Firecracker; what its guest's agent and kernel would say, the test guest says.
FIRECRACKER = {
    "reset": Death(lambda v: v.do("reboot"), "guest_reset", "vmm", "vmm"),
    "triple-fault": Death(lambda v: v.do("crash"), "guest_reset", "vmm", "vmm"),
    "shutdown": Death(
        says_and_resets("motte-agent: bye: shutdown"),
        "guest_shutdown",
        "console",
        "console",
        console="bye: shutdown",
    ),
    "panic": Death(
        says_and_resets("[    1.234567] Kernel panic - not syncing: test"),
        "guest_panic",
        "console",
        "console",
        console="not syncing: test",
    ),
    "oom": Death(
        says_and_resets("[    2.5] Kernel panic - not syncing: System is deadlocked on memory"),
        "guest_oom",
        "console",
        "console",
    ),
    "cgroup-oom": Death(squeezed("hog", "64"), "cgroup_oom", "cgroup", "cgroup"),
    "killed": Death(lambda v: v.signal(signal.SIGKILL), "vmm_crash", "exit_status", "silence"),
    "crashed": Death(lambda v: v.signal(signal.SIGSEGV), "vmm_crash", "exit_status", "vmm"),
    "blocked-call": Death(misbehaves, "seccomp", "exit_status", "vmm"),
}

# On emulated QEMU, with Linux and the real agent.
QEMU = {
    "reset": Death(lambda v: v.shell(SYSRQ.format("b")), "guest_reset", "vmm", "vmm"),
    "power-off": Death(lambda v: v.shell(POWER_OFF), "guest_shutdown", "vmm", "vmm"),
    "bye": Death(
        lambda v: v.shell("kill -s RTMIN+4 1; sleep 60"),
        "guest_shutdown",
        "console",
        "console",
        console="motte-agent: bye: shutdown",
    ),
    "restart": Death(
        lambda v: v.shell("kill -s RTMIN+5 1; sleep 60"),
        "guest_reset",
        "vmm",
        "vmm",
        console="motte-agent: bye: reset",
    ),
    "panic": Death(
        lambda v: v.shell(SYSRQ.format("c")),
        "guest_panic",
        "console",
        "console",
        console="Kernel panic - not syncing: sysrq triggered crash",
    ),
    "oom": Death(lambda v: v.shell(PANIC_ON_OOM), "guest_oom", "console", "console"),
    "cgroup-oom": Death(hogs, "cgroup_oom", "cgroup", "cgroup"),
    "killed": Death(lambda v: v.signal(signal.SIGKILL), "vmm_crash", "exit_status", "silence"),
    "told": Death(lambda v: v.signal(signal.SIGTERM), "vmm_exit", "vmm", "vmm"),
    "blocked-call": Death(misbehaves, "seccomp", "exit_status", "silence", "vmm_crash"),
}


def certificate_of(client: Client, vm_id: str) -> dict[str, Any]:
    context: dict[str, Any] = client.wait_gone(vm_id)["context"]
    return context


def audit_of(client: Client, vm_id: str) -> dict[str, dict[str, Any]]:
    """The last entry of each kind."""
    answer = client.expect(200, "GET", f"/vms/{vm_id}/audit").json()
    return {entry["kind"]: entry["detail"] for entry in answer["entries"]}


def explained(victim: Victim, death: Death, adopted: bool) -> None:
    """Does it die, and is it told everywhere, and alike?"""
    client = victim.client
    reason = death.adopted_reason if adopted and death.adopted_reason else death.reason
    _, before = scrape(client)
    death.act(victim)
    certificate = certificate_of(client, victim.id)
    assert (certificate["state"], certificate["reason"]) == ("exited", reason), certificate
    assert certificate["instance"] == victim.instance
    assert certificate["message"]
    assert certificate["created_at"] <= certificate["ended_at"]
    assert death.console in certificate["console"]
    audit = audit_of(client, victim.id)
    assert audit["ended"] == {"state": "exited", "reason": reason}
    asked = {"vm": victim.id, "kind": "ended", "after": 0, "follow": "false"}
    assert f'"reason":"{reason}"' in client.expect(200, "GET", "/events", params=asked).text
    known_by = death.adopted_known_by if adopted else death.known_by
    assert audit["vmm_exited"]["known_by"] == known_by, audit
    assert ("adopted" in audit) == adopted
    _, after = scrape(client)
    family = "motte_vm_ends_total"
    assert total(after, family) - total(before, family) == 1
    assert total(after, family, reason=reason) - total(before, family, reason=reason) == 1
    victim.daemon.assert_no_leftovers()


def victim_of(daemon: Daemon, client: Client, backend: Backend, vm_id: str) -> Victim:
    vm = client.create(id=vm_id, memory_mib=backend.memory_mib)
    return Victim(daemon, client, vm_id, vm["instance"])


def adopted_victims(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    ways: Iterable[str],
) -> dict[str, Victim]:
    """A VM for each way to die, made by one daemon and handed on to another."""
    daemon = start()
    client = connect(daemon)
    made = {how: client.create(id=how, memory_mib=backend.memory_mib) for how in ways}
    daemon.stop()
    client = connect(daemon.start())
    return {how: Victim(daemon, client, how, vm["instance"]) for how, vm in made.items()}
