"""Root in a Linux guest tries everything. Whatever it does to itself, the service, a neighbour, the
image and the host's files stay as they were. The freestanding guest as a liar:
test_hostile_agent.py."""

import re
import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client, Exec
from harness.contract import Contract
from harness.daemon import Daemon
from harness.waiting import wait_until
from harness.watch import undisturbed

pytestmark = [pytest.mark.core, pytest.mark.linux]

# What the guest itself writes to its console: an emulated UART takes 100 KiB a second, so that the
# gigabyte is written in the VMM's place.
CONSOLE_KIB = {"qemu": 256, "firecracker-linux": 64}
OUTPUT_MIB = {"qemu": 1024, "firecracker-linux": 64}
UNRESPONSIVE_S = 60


@pytest.fixture(scope="module")
def daemon(shared: Daemon, contract: Contract) -> Iterator[Daemon]:
    """With VMs that live through the file; at its end nothing is left."""
    yield shared
    with closing(Client(contract, str(shared.socket_path))) as client:
        for vm in client.list(limit=500):
            client.delete(vm["id"])
    shared.assert_no_leftovers()
    assert shared.vmms() == {}
    assert shared.vm_rules() == []


@pytest.fixture
def attacker(daemon: Daemon, client: Client, backend: Backend) -> Iterator[str]:
    """A VM beside a neighbour that must not notice; another one if it did not survive the last
    attack."""
    response = client.request("GET", "/vms/attacker")
    if response.status_code != 200 or response.json()["state"] != "running":
        client.request("DELETE", "/vms/attacker")
        client.create(id="attacker", memory_mib=backend.memory_mib)
    with undisturbed(daemon, client, backend):
        yield "attacker"


def python(client: Client, vm_id: str, script: str, timeout_ms: int = 120_000) -> Exec:
    return client.exec(vm_id, ["python3", "-c", script], timeout_ms=timeout_ms)


def shell(client: Client, vm_id: str, script: str, timeout_ms: int = 120_000) -> Exec:
    return client.exec(vm_id, ["/bin/sh", "-c", script], timeout_ms=timeout_ms)


def alive(client: Client, vm_id: str) -> bool:
    return client.exec(vm_id, ["/bin/echo", "alive"], timeout_ms=120_000).out == "alive\n"


def cgroup_number(daemon: Daemon, instance: str, *names: str) -> int:
    for folder in host.cgroups_named(daemon.cgroup):
        for name in names:
            path = Path(folder) / name
            if folder.endswith(instance) and path.exists():
                return int(path.read_text(encoding="utf-8"))
    raise AssertionError(f"no {names} of {instance}")


def vmm_of(daemon: Daemon, instance: str) -> int:
    return next(
        pid
        for pid in daemon.vmms()
        if instance in Path(f"/proc/{pid}/cmdline").read_text(encoding="latin-1")
    )


# Each way to write to the image prints its name only if the kernel said that it had been done.
WRITES = r"""
import ctypes, fcntl, mmap, os, stat, subprocess
def way(name, act):
    try:
        act()
    except (OSError, ValueError, subprocess.SubprocessError):
        print("refused", name)
    else:
        print("WROTE", name)
def write(path, flags=0, at=0):
    fd = os.open(path, os.O_WRONLY | flags)
    try:
        os.pwrite(fd, mmap.mmap(-1, 4096), at)
        os.fsync(fd)
    finally:
        os.close(fd)
def fresh_node():
    os.mknod("/dev/mine", 0o600 | stat.S_IFBLK, os.stat("/dev/vda").st_rdev)
    write("/dev/mine")
def ioctl(number, argument):
    fd = os.open("/dev/vda", os.O_RDONLY)
    try:
        fcntl.ioctl(fd, number, argument)  # may succeed: the device itself says no afterwards
        write("/dev/vda")
    finally:
        os.close(fd)
def discard():
    fd = os.open("/dev/vda", os.O_RDWR)
    fcntl.ioctl(fd, 0x1277, b"\0" * 8 + (4096).to_bytes(8, "little"))
def through_memory():
    fd = os.open("/dev/vda", os.O_RDWR)
    view = mmap.mmap(fd, 4096)
    view[:4] = b"mine"
    view.flush()
def sysfs():
    with open("/sys/block/vda/ro", "w") as file:
        file.write("0")
    write("/dev/vda")
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=b""):
    if libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
        raise OSError(ctypes.get_errno(), "mount")
def remount():
    os.makedirs("/tmp/image", exist_ok=True)
    mount(b"/dev/vda", b"/tmp/image", b"squashfs", 1)
    mount(b"/dev/vda", b"/tmp/image", b"squashfs", 32)
    with open("/tmp/image/etc/mine", "w") as file:
        file.write("x")
way("first sector", lambda: write("/dev/vda"))
way("direct", lambda: write("/dev/vda", os.O_DIRECT | os.O_SYNC))
way("far sector", lambda: write("/dev/vda", 0, 1 << 20))
way("fresh node", fresh_node)
way("set rw", lambda: ioctl(0x125D, (0).to_bytes(4, "little")))
way("discard", discard)
way("mmap", through_memory)
way("sysfs", sysfs)
way("remount", remount)
"""


def test_R21_no_way_of_writing_reaches_the_image(client: Client, attacker: str) -> None:
    """The digest is compared by the fixture, the device's word here."""
    done = python(client, attacker, WRITES)
    lines = done.out.splitlines()
    assert len(lines) == 9, done
    assert [line for line in lines if not line.startswith("refused ")] == [], done


def test_R26_memory_devices_and_modules_lead_nowhere(
    client: Client, attacker: str, backend: Backend
) -> None:
    """What the guest's kernel gives root of its own machine is the guest's own."""
    script = r"""
import ctypes, os
for name in ("mem", "kmem", "port"):
    numbers = {"mem": 1, "kmem": 2, "port": 4}
    try:
        os.mknod(f"/dev/my{name}", 0o600 | 0o020000, os.makedev(1, numbers[name]))
        fd = os.open(f"/dev/my{name}", os.O_RDWR)
        for at in (0x80, 0x1000, 0xA0000, 0xD0000000, 0xFEC00000):
            try:
                os.pwrite(fd, b"\xff" * (1 if name == "port" else 64), at)
            except OSError:
                pass
    except OSError as error:
        print(name, error.errno)
libc = ctypes.CDLL(None, use_errno=True)
junk = b"\x7fELF" + bytes(4096)
print("init_module", libc.syscall(175, junk, len(junk), b""))
fd = os.memfd_create("module")
os.write(fd, junk)
print("finit_module", libc.syscall(313, fd, b"", 0))
"""
    response = client.request(
        "POST",
        f"/vms/{attacker}/exec",
        json={"argv": ["python3", "-c", script], "timeout_ms": 60_000},
    )
    if response.status_code == 200:
        out = response.json()["stdout"]
        assert "init_module -1" in out
        assert "finit_module -1" in out
    else:  # it has shot itself
        assert response.status_code in (404, 409, 502, 504), response.text


def test_R26_a_fork_bomb_stays_in_its_vm(daemon: Daemon, client: Client, attacker: str) -> None:
    instance = client.get(attacker)["instance"]
    response = client.request(
        "POST",
        f"/vms/{attacker}/exec",
        json={"argv": ["/bin/sh", "-c", "f() { f | f & }; f; sleep 600"], "timeout_ms": 3000},
    )
    assert response.status_code in (200, 504), response.text
    assert cgroup_number(daemon, instance, "pids.current") <= 64
    assert alive(client, attacker)


def test_R26_a_memory_hog_takes_no_more_than_its_vm_has(
    daemon: Daemon, client: Client, attacker: str, backend: Backend
) -> None:
    instance = client.get(attacker)["instance"]
    script = "hog = []\nwhile True: hog.append(bytearray(b'x') * (4 << 20))"
    response = client.request(
        "POST",
        f"/vms/{attacker}/exec",
        json={"argv": ["python3", "-c", script], "timeout_ms": 120_000},
    )
    why = client.request("GET", f"/vms/{attacker}").text
    assert response.status_code in (200, 504), f"{response.text} {why}"
    if response.status_code == 200:
        assert (response.json()["signal"], response.json()["exit_code"]) != (None, 0)
    used = cgroup_number(daemon, instance, "memory.max_usage_in_bytes", "memory.current")
    assert used <= (backend.memory_mib + 256) << 20
    assert alive(client, attacker)


def test_R26_a_disk_hog_fills_its_own_overlay_only(
    daemon: Daemon, client: Client, attacker: str, backend: Backend
) -> None:
    """The overlay is memory: what is full is the VM's, and the host's disk does not grow."""
    before = sum(path.stat().st_blocks for path in daemon.home.rglob("*") if path.is_file())
    response = client.request(
        "POST",
        f"/vms/{attacker}/exec",
        json={"shell": "dd if=/dev/zero of=/fill bs=1M count=4096", "timeout_ms": 60_000},
    )
    assert response.status_code in (200, 504), response.text
    if response.status_code == 200:
        assert (response.json()["signal"], response.json()["exit_code"]) != (None, 0)
    after = sum(path.stat().st_blocks for path in daemon.home.rglob("*") if path.is_file())
    assert after - before < (4 << 20) // 512
    assert shell(client, attacker, "rm -f /fill; echo free").out == "free\n"


def test_R26_a_scratch_disk_is_full_at_its_size(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    size = 32
    with undisturbed(daemon, client, backend):
        client.create(id="scratch", memory_mib=backend.memory_mib, disk_mib=size)
        done = shell(client, "scratch", "dd if=/dev/zero of=/fill bs=1M count=4096 conv=fsync")
        assert done.code != 0
        assert "No space left" in done.err
        sizes = [int(n) for n in re.findall(r"(\d+) bytes", done.err)]
        assert 0 < max(sizes) < size << 20
        assert alive(client, "scratch")


# Every port of the transport: vsock's to the host, or the serial ports of an emulated machine.
STORM = r"""
import glob, os, socket, time
opened = wrote = 0
end = time.monotonic() + 3
for name in sorted(glob.glob("/dev/vport*")):
    try:
        fd = os.open(name, os.O_RDWR | os.O_NONBLOCK)
        opened += 1
        for _ in range(256):
            wrote += os.write(fd, b"\xff" * 4096)
    except OSError:
        pass
if hasattr(socket, "AF_VSOCK") and not glob.glob("/dev/vport*"):
    held, port = [], 0
    while time.monotonic() < end:
        port = port % 2048 + 1
        one = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        one.settimeout(0.2)
        try:
            one.connect((2, port))
            one.send(b"\xff" * 4096)
            held.append(one)
            opened += 1
        except OSError:
            one.close()
print("opened", opened)
"""


def test_R31_a_storm_on_every_port_finds_nobody(
    client: Client, attacker: str, backend: Backend
) -> None:
    """The agent has the serial ports for itself; of vsock's nobody listens after hello."""
    assert python(client, attacker, STORM).out == "opened 0\n"
    assert alive(client, attacker)


def stored(daemon: Daemon) -> int:
    """Bytes in the service's files."""
    return sum(path.stat().st_size for path in daemon.home.rglob("*") if path.is_file())


def test_R31_a_flood_of_the_console_leaves_nothing(
    daemon: Daemon, client: Client, attacker: str, backend: Backend
) -> None:
    before = stored(daemon)
    script = f"yes {'x' * 79} | head -c {CONSOLE_KIB[backend.kind] << 10} >/dev/console; echo told"
    assert shell(client, attacker, script, timeout_ms=300_000).out == "told\n"
    assert stored(daemon) - before < 1 << 20
    assert alive(client, attacker)


def test_R31_a_gigabyte_from_the_vmms_output_leaves_nothing(
    daemon: Daemon, client: Client, attacker: str, backend: Backend
) -> None:
    """Into the very pipe that the VMM writes the console to, as fast as the service takes it; in
    the nested host a sixteenth of it."""
    before = stored(daemon)
    pid = vmm_of(daemon, client.get(attacker)["instance"])
    left = OUTPUT_MIB[backend.kind] << 20
    with open(f"/proc/{pid}/fd/1", "wb", buffering=0) as console:
        chunk = (b"x" * 79 + b"\n") * 800
        while left > 0:
            assert select.select([], [console], [], 10)[1], "the service does not take it"
            left -= console.write(chunk) or 0
    assert stored(daemon) - before < 1 << 20
    assert alive(client, attacker)


# Every process of the agent: those of the program that is process 1.
AGENT = (
    "agent=; for p in /proc/[0-9]*; do "
    '[ $p/exe -ef /proc/1/exe ] && agent="$agent ${p#/proc/}"; done; '
)


def refused(client: Client, vm_id: str, **body: str | int | list[str]) -> str:
    """The code of the error that a command ends with, in bounded time."""
    began = time.monotonic()
    response = client.request("POST", f"/vms/{vm_id}/exec", json=body)
    assert time.monotonic() - began < UNRESPONSIVE_S
    assert response.status_code in (404, 409, 502, 504), response.text
    return str(response.json()["code"])


def test_R31_an_agent_that_was_killed_is_back_for_the_next_command(
    client: Client, attacker: str, backend: Backend
) -> None:
    """Process 1 takes no signal that it has no handler for, and the others are its children."""
    signals = "for s in KILL STOP TERM ABRT SEGV QUIT HUP; do kill -$s 1; done; echo $agent"
    assert len(shell(client, attacker, AGENT + signals).out.split()) >= 2
    script = AGENT + "for p in $agent; do [ $p = 1 ] || kill -9 $p; done; sleep 3600"
    timeout = 3000 if backend.emulated else 10_000
    code = refused(client, attacker, shell=script, timeout_ms=timeout)
    assert code in ("guest_closed", "guest_unresponsive")
    assert alive(client, attacker)


# Root in the guest is root: it can stop its agent all the same.
STOPS = {
    "suspended": "for p in $agent; do [ $p = 1 ] || kill -STOP $p; done",
    "frozen": (
        "mkdir /sys/fs/cgroup/ice; for p in $agent; do "
        "echo $p >/sys/fs/cgroup/ice/cgroup.procs; done; echo 1 >/sys/fs/cgroup/ice/cgroup.freeze"
    ),
    "crashed": "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger",
}
STOPPED = {"guest_unresponsive", "guest_closed", "vm_gone", "vm_not_running"}


@pytest.mark.parametrize("how", STOPS)
def test_R31_an_agent_that_was_stopped_is_a_typed_error_and_goes_with_its_vm(
    daemon: Daemon, client: Client, backend: Backend, how: str
) -> None:
    timeout = 3000 if backend.emulated else 10_000
    with undisturbed(daemon, client, backend):
        client.create(id="stopped", memory_mib=backend.memory_mib)
        script = AGENT + STOPS[how] + "; sleep 3600"
        assert refused(client, "stopped", shell=script, timeout_ms=timeout) in STOPPED
        if how == "frozen":
            later = refused(client, "stopped", argv=["/bin/echo", "?"], timeout_ms=timeout)
            assert later in STOPPED
        client.request("DELETE", "/vms/stopped")
        client.problem(404, "vm_gone", "GET", "/vms/stopped")


def test_R20_nothing_is_left_of_a_vm_deleted_in_the_middle_of_its_worst(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    def traces() -> dict[str, object]:
        return {
            "rules": daemon.rules(),
            "cgroups": host.cgroups_named(daemon.cgroup),
            "processes": daemon.vmms(),
            "scratch": host.files_below(daemon.state_dir / "scratch"),
            "run": host.files_below(daemon.run_dir),
        }

    before = traces()
    vm = client.create(id="worst", memory_mib=backend.memory_mib, disk_mib=32)
    pid = vmm_of(daemon, vm["instance"])
    booted = host.processor_s(pid)
    script = "(dd if=/dev/zero of=/fill bs=1M & f() { f | f & }; f; yes) >/dev/console 2>&1; wait"
    with (
        ThreadPoolExecutor(1) as pool,
        closing(Client(client.contract, str(daemon.socket_path))) as other,
    ):
        body = {"shell": script, "timeout_ms": 600_000}
        worst = pool.submit(other.request, "POST", "/vms/worst/exec", json=body)
        with suppress(TimeoutError):
            wait_until(lambda: host.processor_s(pid) - booted >= 1.0, UNRESPONSIVE_S)
        client.delete("worst")
        assert worst.result(timeout=60).status_code in (404, 409, 502)
    assert traces() == before
