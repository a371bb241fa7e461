"""R04: whichever step of a spawn fails, nothing of it stays. Each step is made to fail for real."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import host
from harness.client import Client
from harness.daemon import Daemon, program
from harness.waiting import wait_until

pytestmark = pytest.mark.testguest

Start = Callable[..., Daemon]
Connect = Callable[..., Client]


def failures(client: Client, step: str) -> float:
    """How often the metric saw this step fail."""
    text = client.expect(200, "GET", "/metrics").text
    name = f'motte_spawn_failures_total{{step="{step}"'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def traces(daemon: Daemon) -> dict[str, Any]:
    """Everything a spawn could leave on the host."""
    return {
        "rules": daemon.rules(),
        "cgroups": host.cgroups_named(daemon.cgroup),
        "mounts": host.mounts_below(daemon.home),
        "run": host.files_below(daemon.run_dir),
        "processes": daemon.vmms(),
        "rows": daemon.rows(),
    }


def fails_at(
    daemon: Daemon, client: Client, step: str, status: int, code: str, **spec: Any
) -> None:
    """Creates a VM that must fail at `step`, and finds nothing of it afterwards."""
    before, counted = traces(daemon), failures(client, step)
    problem = client.problem(status, code, "POST", "/vms", json={"id": "undone", **spec})
    assert f"step {step}" in problem["detail"], problem
    assert traces(daemon) == before
    daemon.assert_no_leftovers()
    assert failures(client, step) == counted + 1
    if step != "admit":  # from here on there was a row, so the end is on record
        gone = client.problem(404, "vm_gone", "GET", "/vms/undone")
        assert f"spawn_{step}" in gone["detail"], gone
    client.create(id="undone", image="testguest", memory_mib=128)  # the id is free, all else works
    client.delete("undone")


def guest_elf(daemon: Daemon) -> bytes:
    return (daemon.state_dir / "kernels" / "testguest" / "vmlinux").read_bytes()


def add_image(daemon: Daemon, name: str, vmlinux: bytes) -> None:
    """An image of its own that boots this kernel."""
    folder = daemon.home / f"kernel-{name}"
    folder.mkdir()
    (folder / "vmlinux").write_bytes(vmlinux)
    disk = daemon.home / f"disk-{name}"
    disk.write_bytes(os.urandom(1 << 16))
    for words in (
        ["kernel", "add", str(folder), "--name", name],
        ["image", "add", str(disk), "--raw", "--name", name, "--kernel", name],
    ):
        done = daemon.admin(*words)
        assert done.returncode == 0, done.stderr


def broken_elf(daemon: Daemon) -> bytes:
    """Says that it is an ELF file, but its first segment is longer than the file."""
    elf = bytearray(guest_elf(daemon))
    segments = struct.unpack_from("<Q", elf, 32)[0]
    struct.pack_into("<QQ", elf, segments + 32, 1 << 30, 1 << 30)
    return bytes(elf)


def test_R04_admit_what_does_not_fit_is_refused(start: Start, connect: Connect) -> None:
    daemon = start(["--max-vms=1"])
    client = connect(daemon)
    client.create(id="only", memory_mib=128)
    before = traces(daemon)
    client.problem(503, "capacity_exhausted", "POST", "/vms", json={"id": "second"})
    assert traces(daemon) == before
    client.delete("only")
    client.create(id="second", memory_mib=128)


def test_R04_guard_a_rule_that_was_edited(start: Start, connect: Connect, tmp_path: Path) -> None:
    """The tables keep their size, so that only the read-back can see it."""
    daemon = start()
    client = connect(daemon)
    client.create(id="undone", memory_mib=128)
    client.delete("undone")
    before = traces(daemon)
    edit = ("iptables-legacy", "-t", "security", "-R", "MOTTE_phys", "1", "-j")
    with host.locked():  # the repair has to wait
        host.run(*edit, "ACCEPT", lock=str(tmp_path / "lock"))
        problem = client.problem(503, "firewall_out_of_sync", "POST", "/vms", json={"id": "undone"})
        assert "step guard" in problem["detail"], problem
        assert "MOTTE_phys" in problem["detail"], problem
        daemon.assert_no_leftovers()
        assert daemon.vmms() == {}
    gone = client.problem(404, "vm_gone", "GET", "/vms/undone")
    assert "spawn_guard" in gone["detail"], gone
    wait_until(lambda: traces(daemon) == before)
    client.create(id="undone", memory_mib=128)


def test_R04_R21_launch_an_image_that_was_changed(start: Start, connect: Connect) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="seen", memory_mib=128)  # its digest has been checked once
    disk = bytearray(daemon.disk.read_bytes())
    original = bytes(disk)
    disk[4096] ^= 1
    daemon.disk.chmod(0o644)
    daemon.disk.write_bytes(disk)
    daemon.disk.chmod(0o444)
    before = traces(daemon)
    problem = client.problem(500, "image_changed", "POST", "/vms", json={"id": "undone"})
    assert "step launch" in problem["detail"]
    assert traces(daemon) == before
    daemon.disk.write_bytes(original)
    client.create(id="undone", memory_mib=128)


def test_R04_configure_a_vmm_that_ends_at_once(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    """Firecracker is replaced by a program that exits, after motted has asked its version."""
    own = tmp_path / "firecracker"
    shutil.copy(program("firecracker"), own)
    daemon = start([f"--firecracker={own}"])
    client = connect(daemon)
    client.create(id="works", memory_mib=128)
    client.delete("works")
    before = traces(daemon)
    own.unlink()
    shutil.copy("/bin/false", own)
    problem = client.problem(502, "vmm_exited", "POST", "/vms", json={"id": "undone"})
    assert "step configure" in problem["detail"], problem
    assert traces(daemon) == before
    daemon.assert_no_leftovers()


def test_R04_start_a_kernel_that_cannot_be_loaded(start: Start, connect: Connect) -> None:
    daemon = start()
    add_image(daemon, "broken", broken_elf(daemon))
    fails_at(daemon, connect(daemon), "start", 502, "hypervisor_failed", image="broken")


def test_R04_hello_a_guest_that_says_something_else(start: Start, connect: Connect) -> None:
    daemon = start()
    elf = guest_elf(daemon)
    other = elf.replace(b'"op":"hello"', b'"op":"hullo"')
    assert other != elf
    add_image(daemon, "other", other)
    fails_at(daemon, connect(daemon), "hello", 502, "guest_protocol", image="other")


def test_R04_hello_a_guest_that_says_nothing(start: Start, connect: Connect) -> None:
    daemon = start(["--boot-timeout-ms=300"])
    elf = guest_elf(daemon)
    silent = elf.replace(b"virtio_mmio.device=", b"virtio_none.device=")
    assert silent != elf
    add_image(daemon, "silent", silent)
    fails_at(daemon, connect(daemon), "hello", 504, "boot_timeout", image="silent")
