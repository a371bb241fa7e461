"""R24, R25, R29: why a VM ended is told in its certificate, its audit and the metrics, also of a VM
that a daemon before this one started, whose exit status nobody learns."""

import contextlib
import fcntl
import os
import re
import signal
import sqlite3
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import host, inject
from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until

CONSOLE_MAX = 8192
PIPE_SIZE = 65536
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
    known_by = death.adopted_known_by if adopted else death.known_by
    assert audit["vmm_exited"]["known_by"] == known_by, audit
    assert ("adopted" in audit) == adopted
    _, after = scrape(client)
    family = "motte_vm_ends_total"
    assert total(after, family) - total(before, family) == 1
    assert total(after, family, reason=reason) - total(before, family, reason=reason) == 1
    victim.daemon.assert_no_leftovers()


def test_R25_the_contract_and_the_metrics_know_the_same_reasons(
    client: Client, contract: Contract
) -> None:
    text, _ = scrape(client)
    counted = set(re.findall(r'^motte_vm_ends_total\{reason="(\w+)"\}', text, re.MULTILINE))
    reasons = contract.document["components"]["schemas"]["Reason"]["oneOf"]
    assert counted - {"other"} == {entry["const"] for entry in reasons}
    assert all(entry["description"].endswith(".") for entry in reasons)


def victim_of(daemon: Daemon, client: Client, backend: Backend, vm_id: str) -> Victim:
    vm = client.create(id=vm_id, memory_mib=backend.memory_mib)
    return Victim(daemon, client, vm_id, vm["instance"])


def adopted_victim(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> Victim:
    daemon = start()
    vm = connect(daemon).create(id="orphan", memory_mib=backend.memory_mib)
    daemon.stop()
    return Victim(daemon.start(), connect(daemon), "orphan", vm["instance"])


@pytest.mark.testguest
@pytest.mark.parametrize("how", FIRECRACKER)
def test_R24_R25_a_death_on_firecracker_is_explained(
    daemon: Daemon, client: Client, backend: Backend, how: str
) -> None:
    explained(victim_of(daemon, client, backend, how), FIRECRACKER[how], adopted=False)


@pytest.mark.testguest
@pytest.mark.parametrize("how", FIRECRACKER)
def test_R24_R25_a_death_after_adoption_on_firecracker_is_explained(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, how: str
) -> None:
    explained(adopted_victim(start, connect, backend), FIRECRACKER[how], adopted=True)


@pytest.mark.linux
@pytest.mark.emulated
@pytest.mark.parametrize("how", QEMU)
def test_R24_R25_a_death_of_linux_on_qemu_is_explained(
    daemon: Daemon, client: Client, backend: Backend, how: str
) -> None:
    explained(victim_of(daemon, client, backend, how), QEMU[how], adopted=False)


@pytest.mark.linux
@pytest.mark.emulated
@pytest.mark.parametrize("how", QEMU)
def test_R24_R25_a_death_of_linux_after_adoption_on_qemu_is_explained(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, how: str
) -> None:
    explained(adopted_victim(start, connect, backend), QEMU[how], adopted=True)


@pytest.mark.testguest
def test_R24_a_guest_that_claims_much_hides_nothing(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """What it says on its console tells apart only ends that it made itself."""
    words = ("Kernel panic - not syncing: invented", "motte-agent: bye: shutdown")
    for how in ("killed", "crashed", "cgroup-oom", "blocked-call"):
        victim = victim_of(daemon, client, backend, f"claims-{how}")
        for line in words:
            victim.do("say", line)
        explained(victim, FIRECRACKER[how], adopted=False)


def test_R25_the_end_of_a_ttl_and_a_delete_are_in_the_certificate(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    _, before = scrape(client)
    client.create(id="timed", memory_mib=backend.memory_mib, ttl_s=1)
    client.create(id="unwanted", memory_mib=backend.memory_mib)
    client.delete("unwanted")
    for vm_id, reason in (("timed", "ttl"), ("unwanted", "deleted")):
        certificate = certificate_of(client, vm_id)
        assert (certificate["state"], certificate["reason"]) == ("exited", reason)
        assert "vmm_exited" not in audit_of(client, vm_id)
    _, after = scrape(client)
    for reason in ("ttl", "deleted"):
        labels = {"reason": reason}
        moved = total(after, "motte_vm_ends_total", **labels) - total(
            before, "motte_vm_ends_total", **labels
        )
        assert moved == 1, reason


@pytest.mark.testguest
def test_R25_a_certificate_holds_the_newest_of_the_console_whatever_the_bytes(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    victim = victim_of(daemon, client, backend, "loud")
    victim.do("console", str(3 * CONSOLE_MAX))
    victim.do("say", 'caf\u00e9 \U0001f600 \x1b[2J "quoted" \\ end\x7f')
    victim.do("reboot")
    console = certificate_of(client, "loud")["console"]
    assert 'caf\u00e9 \U0001f600 \x1b[2J "quoted" \\ end\x7f' in console
    assert "x" * 79 in console
    assert len(console.encode()) <= CONSOLE_MAX + 64  # what was cut in two became U+FFFD


@pytest.mark.testguest
def test_R25_a_certificate_is_its_owners_and_the_newest_of_its_id(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    for how in ("reset", "killed"):
        explained(victim_of(daemon, client, backend, "again"), FIRECRACKER[how], adopted=False)
    assert certificate_of(client, "again")["reason"] == "vmm_crash"
    client.create(id="again", memory_mib=backend.memory_mib)
    assert client.get("again")["state"] == "running", "the living come first"
    client.problem(404, "vm_not_found", "GET", "/vms/never")


# ---- while motted is away ----


@pytest.mark.testguest
def test_R24_R25_who_died_while_motted_was_away_has_what_the_host_still_knows(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    starved, shot = (victim_of(daemon, client, backend, name) for name in ("starved", "shot"))
    pids = [vmm_of(daemon, victim.instance) for victim in (starved, shot)]
    starved.squeeze()
    starved.do("chatter", "40000", "64")  # goes on for a second or more, and then takes memory
    daemon.stop()
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: not set(pids) & set(daemon.vmms()), 60, "they live")
    client = connect(daemon.start())
    for victim, reason, known_by in (
        (starved, "cgroup_oom", "cgroup"),
        (shot, "vmm_exit", "nothing"),
    ):
        certificate = certificate_of(client, victim.id)
        assert (certificate["state"], certificate["reason"]) == ("lost", reason)
        assert audit_of(client, victim.id)["vmm_exited"]["known_by"] == known_by
    _, samples = scrape(client)
    assert total(samples, "motte_vm_ends_total", reason="cgroup_oom") == 1
    assert total(samples, "motte_vm_ends_total", reason="vmm_exit") == 1
    daemon.assert_no_leftovers()


@pytest.mark.testguest
def test_R25_who_was_there_before_the_host_restarted_is_told_so(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """A restart leaves the inventory, with another boot's id in it, and nothing else."""
    daemon = start()
    vm = connect(daemon).create(id="old", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    daemon.stop()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in daemon.vmms(), 30, "it lives")
    (daemon.run_dir / "priv" / vm["instance"]).unlink()
    for folder in host.cgroups_named(daemon.cgroup):
        os.rmdir(folder)
    with contextlib.closing(sqlite3.connect(daemon.state_dir / "front" / "motte.db")) as db, db:
        db.execute("UPDATE vms SET boot = '00000000-0000-4000-8000-000000000000'")
    client = connect(daemon.start())
    certificate = certificate_of(client, "old")
    assert (certificate["state"], certificate["reason"]) == ("lost", "host_reboot")
    _, samples = scrape(client)
    assert total(samples, "motte_vm_ends_total", reason="host_reboot") == 1
    daemon.assert_no_leftovers()


def unread(pid: int) -> int:
    """Bytes in the pipe that a VMM writes its console to."""
    fd = os.open(f"/proc/{pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


def chattered(client: Client, vm_id: str) -> int:
    return int(client.exec(vm_id, ["chatter"]).out)


@pytest.mark.testguest
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_R29_a_console_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    signal_number: int,
) -> None:
    """The guest writes more than the pipe holds while motted is away, and goes on."""
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="loud", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    client.exec("loud", ["chatter", str(1 << 30)])
    daemon.stop(signal_number)
    wait_until(lambda: unread(pid) >= PIPE_SIZE - 4096, 60, "the pipe is not full")
    client = connect(daemon.start())
    assert vmm_of(daemon, vm["instance"]) == pid
    assert client.exec("loud", ["/bin/echo", "on"]).out == "on\n"
    said = chattered(client, "loud")
    assert said > PIPE_SIZE - 4096
    wait_until(lambda: chattered(client, "loud") > said + PIPE_SIZE, 60, "it has stopped")
    assert unread(pid) < PIPE_SIZE - 4096, "this daemon reads"
    client.delete("loud")
    assert "c" * 79 in certificate_of(client, "loud")["console"]
    daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R29_a_console_of_linux_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="loud", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    leave = "echo 0 >/sys/fs/cgroup/cgroup.procs; echo >/tmp/left"  # else it ends with its command
    flood = f"{leave}; exec yes {'y' * 79} >/dev/console 2>&1"
    wait = "until [ -e /tmp/left ]; do :; done"
    client.exec("loud", ["/bin/sh", "-c", f"setsid sh -c '{flood}' </dev/null & {wait}"])
    daemon.stop()
    wait_until(lambda: unread(pid) >= PIPE_SIZE - 4096, 120, "the pipe is not full")
    client = connect(daemon.start())
    assert vmm_of(daemon, vm["instance"]) == pid
    assert client.exec("loud", ["/bin/echo", "on"], timeout_ms=120_000).out == "on\n"
    client.delete("loud")
    daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R26_a_command_killed_for_want_of_memory_says_so(client: Client, backend: Backend) -> None:
    client.create(id="hungry", memory_mib=backend.memory_mib)
    hog = "a = []\nwhile True: a.append(bytearray(b'x') * (4 << 20))"
    done = client.exec("hungry", ["python3", "-c", hog], timeout_ms=120_000)
    assert (done.signal, done.body["oom_killed"]) == (signal.SIGKILL, True)
    done = client.exec("hungry", ["/bin/sh", "-c", "kill -9 $$"])
    assert (done.signal, done.body["oom_killed"]) == (signal.SIGKILL, False)
