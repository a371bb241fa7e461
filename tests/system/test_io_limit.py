"""What a VM may read and write in a second, on a real disk. Both versions of cgroups have limits of
their own; version 2 is seen in the nested host."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon

MIB_S, IOPS = 8, 500
V1 = {
    f"blkio.throttle.{way}_{kind}_device": str(value)
    for way in ("read", "write")
    for kind, value in (("bps", MIB_S << 20), ("iops", IOPS))
}


@pytest.fixture
def limited(start: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose state directory is an ext4 of its own, on a loop device."""
    daemon = start([f"--max-io-mib-s={MIB_S}", f"--max-iops={IOPS}"], running=False)
    disk, ready = daemon.home / "disk.ext4", daemon.home / "ready"
    used = sum(path.stat().st_size for path in daemon.state_dir.rglob("*") if path.is_file())
    with disk.open("wb") as file:
        file.truncate(used + (128 << 20))
    daemon.state_dir.rename(ready)
    daemon.state_dir.mkdir(mode=0o755)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(daemon.state_dir)], check=True)
    try:
        shutil.copytree(ready, daemon.state_dir, dirs_exist_ok=True)
        shutil.rmtree(ready)
        yield daemon.start()
        daemon.stop()
        daemon.purge()
    finally:
        subprocess.run(["umount", "--lazy", str(daemon.state_dir)], check=True)


@pytest.mark.core
def test_R26_io_is_limited_and_the_limit_bites(
    limited: Daemon, connect: Callable[[Daemon], Client], backend: Backend
) -> None:
    client = connect(limited)
    instance = client.create(id="busy", memory_mib=backend.memory_mib)["instance"]
    number = os.stat(limited.state_dir).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    v2 = f"rbps={MIB_S << 20} wbps={MIB_S << 20} riops={IOPS} wiops={IOPS}"
    folders = [Path(name) for name in host.cgroups_named(limited.cgroup) if name.endswith(instance)]
    unified = [folder for folder in folders if (folder / "io.max").exists()]
    wanted = {"io.max": v2} if unified else V1
    (folder,) = unified or [one for one in folders if (one / next(iter(V1))).exists()]
    for name, value in wanted.items():
        assert (folder / name).read_text(encoding="utf-8") == f"{device} {value}\n"

    def line() -> tuple[str, str]:
        lines = client.expect(200, "GET", "/vms/busy/isolation").json()["lines"]
        return next((one["state"], one["detail"]) for one in lines if one["name"] == "cgroup_io")

    assert line() == ("ok", "")
    # A process in the VMM's place, past the page cache: 16 MiB at 8 MiB/s; the kernel gives the
    # first slice of time for nothing.
    script = (
        'echo $$ >"$0/cgroup.procs" && exec dd if=/dev/zero of="$1" bs=1M count=16 oflag=direct'
    )
    target = limited.state_dir / "hog"
    began = time.monotonic()
    subprocess.run(["sh", "-c", script, str(folder), str(target)], check=True, capture_output=True)
    assert time.monotonic() - began >= 1.7
    name, value = next(iter(wanted.items()))
    (folder / name).write_text(f"{device} {'rbps=max' if unified else 0}", encoding="utf-8")
    state, detail = line()
    assert state == "wrong"
    assert name in detail
    (folder / name).write_text(f"{device} {value}", encoding="utf-8")
    assert line() == ("ok", "")
    client.delete("busy")
