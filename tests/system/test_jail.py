"""What a running VMM holds: descriptors and limits, as the kernel shows them."""

import contextlib
import os
import re
import stat
from pathlib import Path

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.waiting import wait_until

# What a VMM opens itself or is given (0: nothing, 1 and 2: the console; Firecracker's log is a FIFO
# in its jail). Sockets: only those of its own network namespace, which the test looks up.
OWN = re.compile(
    r"/dev/null|/dev/kvm|/dev/urandom|/dev/random|/disk|/scratch|/kernel|/initrd|/vm/console|/log"
    r"|pipe:\[\d+\]"
    r"|anon_inode:(\[?(eventfd|eventpoll|timerfd|signalfd|io_uring)\]?|kvm-vm|kvm-vcpu(:\d+)?)"
)


def vmm_of(daemon: Daemon) -> int:
    (pid,) = daemon.vmms()
    return pid


def unix_sockets(pid: int | str) -> dict[str, str]:
    """Of the process's network namespace: the name each is bound to, or ""."""
    lines = Path(f"/proc/{pid}/net/unix").read_text(encoding="latin-1").splitlines()[1:]
    rows = [line.split() for line in lines]
    return {f"socket:[{row[6]}]": row[7] if len(row) > 7 else "" for row in rows}


def events_of_qemu() -> set[str]:
    """QEMU's end of what the front listens by. A Unix socket that is accepted belongs to the
    namespace of who connected."""
    return {what for what, name in unix_sockets("self").items() if name.endswith("/events.sock")}


def held_by(pid: int) -> dict[int, str]:
    return {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def strangers_of(held: dict[int, str], pid: int, backend: Backend) -> dict[int, str]:
    sockets = set(unix_sockets(pid)) | (events_of_qemu() if backend.emulated else set())
    return {
        fd: what
        for fd, what in held.items()
        if not (OWN.fullmatch(what.removesuffix(" (deleted)")) or what in sockets)
    }


@pytest.mark.core
def test_R26_a_vmm_holds_only_descriptors_of_its_own(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """One of the host's network namespace would pass every wall (test_server_escapes.c)."""
    client.create(id="held", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon)
    with contextlib.suppress(TimeoutError):  # a connection that was ended goes by itself
        wait_until(lambda: strangers_of(held_by(pid), pid, backend) == {}, 10)
    held = held_by(pid)
    assert strangers_of(held, pid, backend) == {}, held
    assert held[0] == "/dev/null"
    assert held[1] == held[2]
    sinks = [1, *(fd for fd, what in held.items() if what == "/log")]
    assert len(sinks) == (1 if backend.emulated else 2)
    for fd in sinks:
        assert stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/{fd}").st_mode), f"{fd} could grow"
    # No directory: a way out of the jail.
    assert not [fd for fd in held if os.path.isdir(f"/proc/{pid}/fd/{fd}")]


@pytest.mark.core
def test_R26_a_vmms_rlimits_are_finite(daemon: Daemon, client: Client, backend: Backend) -> None:
    client.create(id="limited", memory_mib=backend.memory_mib)
    text = Path(f"/proc/{vmm_of(daemon)}/limits").read_text(encoding="utf-8")
    limits = {
        match[1].strip(): (match[2], match[3])
        for match in re.finditer(r"^(Max .{22})(\S+)\s+(\S+)", text, re.M)
    }
    assert limits["Max core file size"] == ("0", "0")
    assert all(0 < int(n) <= 4096 for n in limits["Max open files"]), limits
    assert all(0 < int(n) <= 1 << 30 for n in limits["Max file size"]), limits
    assert limits["Max locked memory"] == ("0", "0")
    report = client.expect(200, "GET", "/vms/limited/isolation").json()["lines"]
    shown = {line["name"]: line["value"] for line in report}
    for name, limit in (
        ("file_size", "Max file size"),
        ("open_files", "Max open files"),
        ("locked_memory", "Max locked memory"),
    ):
        assert limits[limit] == (str(shown[name]),) * 2, name


@pytest.mark.core
def test_R26_a_vmms_bounding_set_is_the_jailers(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """With no_new_privs nothing comes back from it; it is cut all the same. QEMU needs none."""
    client.create(id="bounded", memory_mib=backend.memory_mib)
    held = int(host.status_of(vmm_of(daemon))["CapBnd"], 16)
    names = set(host.run("capsh", f"--decode={held:x}").strip().partition("=")[2].split(","))
    jailer = {
        "cap_sys_admin", "cap_mknod", "cap_chown", "cap_setuid", "cap_setgid", "cap_dac_override",
    }  # fmt: skip
    assert names - {""} <= (set() if backend.emulated else jailer)
