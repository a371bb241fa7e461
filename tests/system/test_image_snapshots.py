"""VMs start from a snapshot of their image just booted, which the service makes by itself."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.kills import kill_front, kill_root
from harness.metrics import scrape, total
from harness.waiting import wait_until
from test_pause import wait_a_while

pytestmark = pytest.mark.testguest

CLOCK_S = 0.05


class Host:
    """A daemon that keeps snapshots of images, and a client of it."""

    def __init__(
        self,
        start: Callable[..., Daemon],
        connect: Callable[..., Client],
        backend: Backend,
        *options: str,
    ) -> None:
        self._connect, self.backend = connect, backend
        self.daemon = start(["--image-snapshots=8", *options])
        self.client = connect(self.daemon)

    def again(self) -> None:
        self.daemon.start()
        self.client = self._connect(self.daemon)

    def spawn(self, vm_id: str, **spec: Any) -> dict[str, Any]:
        made = self.client.create(id=vm_id, **{"memory_mib": self.backend.memory_mib, **spec})
        assert made["snapshot"] is None, "it is nobody's"
        assert self.client.exec(vm_id, ["echo", "on"]).out == "on\n"
        return made

    def source(self, vm_id: str, **spec: Any) -> str:
        """Of a VM that is made for it."""
        source: str = self.spawn(vm_id, **spec)["source"]
        self.client.delete(vm_id)
        return source

    def count(self, family: str, result: str) -> float:
        _, samples = scrape(self.client)
        return total(samples, f"motte_image_snapshot_{family}_total", result=result)

    def kept(self) -> dict[str, Path]:
        """By id, what is published."""
        folder = self.daemon.home / "state" / "snapshots"
        return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}

    def wait_built(self, times: int) -> None:
        """That often since the service started; and nothing is left of templates."""
        wait_until(lambda: self.count("builds", "built") >= times)

    def prepare(self, **spec: Any) -> Path:
        before = set(self.kept())
        built = self.count("builds", "built")
        assert self.source("first", **spec) == "boot"
        self.wait_built(int(built) + 1)
        (made,) = set(self.kept()) - before
        return self.kept()[made]

    def assert_clean(self) -> None:
        for one in self.client.list(limit=500):
            self.client.delete(one["id"])
        self.daemon.wait_no_leftovers()  # of a template that is given up just now


@pytest.fixture
def host(start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend) -> Host:
    return Host(start, connect, backend)


def test_R21_the_second_vm_starts_from_a_snapshot_that_nobody_sees(host: Host) -> None:
    host.prepare()
    assert host.daemon.rows() == 0
    made = host.spawn("second")
    assert (made["source"], made["guest"]["generation"]) == ("snapshot", 1)
    report = host.client.expect(200, "GET", "/vms/second/isolation").json()
    assert report["ok"], [line for line in report["lines"] if line["state"] == "wrong"]
    (name,) = host.kept()
    assert host.client.expect(200, "GET", "/snapshots").json()["snapshots"] == []
    host.client.problem(404, "snapshot_not_found", "GET", f"/snapshots/{name}")
    host.client.problem(404, "snapshot_not_found", "DELETE", f"/snapshots/{name}")
    host.client.problem(404, "snapshot_not_found", "POST", "/vms", json={"snapshot": name})
    assert [one["id"] for one in host.client.list(limit=500)] == ["second"]
    assert len(host.daemon.vmms()) == 1
    host.assert_clean()
    assert set(host.kept()) == {name}


def test_R21_a_cold_one_boots(host: Host) -> None:
    assert host.source("cold", cold=True) == "boot"
    assert host.count("spawns", "missing") == 0
    host.prepare()
    assert host.source("cold", cold=True) == "boot"
    assert host.source("warm", cold=False) == "snapshot"
    made = host.client.create(id="told", cold=True, memory_mib=host.backend.memory_mib)
    assert made["source"] == "boot"
    kept = host.client.expect(201, "POST", "/vms/told/snapshots", json={}).json()
    both = {"snapshot": kept["id"], "cold": True}
    assert "cold" in host.client.problem(400, "invalid_value", "POST", "/vms", json=both)["detail"]


def test_R21_one_of_another_shape_boots(host: Host) -> None:
    host.prepare()
    others: list[dict[str, Any]] = [
        {"vcpus": 2}, {"memory_mib": 2 * host.backend.memory_mib}, {"seccomp": "basic"},
    ]  # fmt: skip
    for built, spec in enumerate(others, 2):
        assert host.source("other", **spec) == "boot"
        host.wait_built(built)
        assert host.source("other", **spec) == "snapshot"
    assert host.source("as-before") == "snapshot"
    assert len(host.kept()) == 4


def test_R21_vms_of_one_snapshot_differ(host: Host) -> None:
    host.prepare()
    words = set()
    for vm_id in ("one", "two"):
        made = host.spawn(vm_id)
        assert made["source"] == "snapshot"
        before = time.time()
        guest = int(host.client.exec(vm_id, ["wall"]).out) / 1000
        assert before - CLOCK_S <= guest <= time.time() + CLOCK_S
        identity = host.client.exec(vm_id, ["identity"]).out.split()
        assert identity[:2] == [made["instance"], "1"]
        words |= {host.client.exec(vm_id, ["random"]).out, *identity[2:]}
    assert len(words) == 2 * 3, "random, hostname and machine id of each"


def test_R21_what_started_from_one_is_snapshotted_and_forked(host: Host) -> None:
    """Of what differs, on the image's snapshot as its base; which may be gone by then."""
    made = host.prepare()
    assert host.spawn("origin")["source"] == "snapshot"
    first = host.client.expect(201, "POST", "/vms/origin/snapshots", json={}).json()
    (made / "memory").unlink()
    assert host.source("boots") == "boot", "the file is gone"
    host.wait_built(2)
    forks = host.client.expect(201, "POST", "/vms/origin/fork", json={"count": 2}).json()["vms"]
    clone = host.client.create(id="clone", snapshot=first["id"])
    assert (clone["source"], clone["snapshot"]) == ("snapshot", first["id"])
    assert clone["guest"]["generation"] == 2
    for vm_id in ("origin", "clone", *(fork["id"] for fork in forks)):
        assert host.client.exec(vm_id, ["echo", "still"]).out == "still\n"
        host.client.delete(vm_id)
    host.client.expect(204, "DELETE", f"/snapshots/{first['id']}")
    host.assert_clean()


def damage(path: Path) -> None:
    """As a failing disk does: the same size, other bytes."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage" * 100)
    path.chmod(0o444)


def shorten(path: Path) -> None:
    os.truncate(path, 4096)


@pytest.mark.parametrize(
    ("name", "harm"),
    [("memory", damage), ("state", damage), ("memory", shorten), ("meta", Path.unlink)],
)
def test_R21_a_damaged_one_is_built_anew_and_nobody_notices(
    host: Host, name: str, harm: Callable[[Path], None]
) -> None:
    made = host.prepare()
    harm(made / name)
    assert host.source("boots") == "boot"
    assert host.count("spawns", "refused") == 1
    host.wait_built(2)
    assert made.name not in host.kept()
    assert host.source("restored") == "snapshot"
    host.assert_clean()


def add_image(host: Host, kernel: str = "testguest", replace: bool = True) -> None:
    """Another disk under the same name."""
    disk = host.daemon.home / "other-disk"
    disk.write_bytes(os.urandom(1 << 20))
    done = host.daemon.admin(
        "image", "add", str(disk), "--raw", "--name", host.backend.image, "--kernel", kernel,
        *(["--replace"] if replace else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_R21_a_replaced_image_boots_and_its_old_snapshot_goes(host: Host) -> None:
    old = host.prepare()
    assert host.spawn("runs")["source"] == "snapshot"
    add_image(host)
    new = host.prepare()
    assert set(host.kept()) == {new.name}
    assert old.name != new.name
    assert host.source("next") == "snapshot"
    assert host.client.exec("runs", ["echo", "still"]).out == "still\n"
    host.assert_clean()


def test_R21_at_start_those_of_images_that_are_gone_go(host: Host) -> None:
    host.prepare()
    host.daemon.stop()
    add_image(host)
    host.again()
    assert host.kept() == {}
    host.prepare()
    host.daemon.stop()
    host.again()
    assert host.source("restored") == "snapshot", "the others outlive the service"
    assert host.count("spawns", "restored") == 1
    host.assert_clean()


def other_program(kernel: Path) -> None:
    """The same in another file."""
    program = kernel / "vmlinux"
    program.write_bytes(program.read_bytes() + b"\0")


def other_arguments(kernel: Path) -> None:
    (kernel / "boot_args").write_text("another=word", encoding="utf-8")


@pytest.mark.parametrize("change", [other_program, other_arguments])
def test_R21_another_kernel_of_an_image_means_a_boot(
    host: Host, change: Callable[[Path], None]
) -> None:
    old = host.prepare()
    kernel = host.daemon.home / "kernel"
    change(kernel)
    done = host.daemon.admin(
        "kernel", "add", str(kernel), "--name", host.backend.kernel, "--replace"
    )
    assert done.returncode == 0, done.stderr
    assert host.source("boots") == "boot"
    host.wait_built(2)
    assert set(host.kept()).isdisjoint({old.name}), "nobody can ask for it"
    assert host.source("restored") == "snapshot"


def test_R21_the_least_used_goes_where_there_may_be_no_more(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    host = Host(start, connect, backend, "--image-snapshots=2", "--max-snapshots=1")
    shapes = [{"memory_mib": backend.memory_mib + step} for step in (0, 2, 4)]
    host.prepare(**shapes[0])
    host.prepare(**shapes[1])
    assert host.source("used", **shapes[0]) == "snapshot"
    host.spawn("callers", cold=True)
    host.client.expect(201, "POST", "/vms/callers/snapshots", json={})
    assert host.source("first", **shapes[2]) == "boot"
    host.wait_built(3)
    assert len(host.kept()) == 3, "with the caller's, which they leave room for"
    assert host.source("still", **shapes[0]) == "snapshot"
    assert host.source("gone", **shapes[1]) == "boot"
    host.wait_built(4)
    assert len(host.kept()) == 3


def test_R21_none_are_kept_where_that_is_switched_off(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    host = Host(start, connect, backend)
    host.prepare()
    host.daemon.stop()
    host.daemon.options = ["--image-snapshots=0"]
    host.again()
    assert host.kept() == {}
    assert host.source("boots") == "boot"
    assert host.source("boots-too") == "boot"
    assert host.count("spawns", "missing") == 0
    host.assert_clean()


def test_R09_no_spawn_is_refused_for_the_sake_of_a_template(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """There is room for two: whatever the template is at, its place is the caller's."""
    host = Host(start, connect, backend, "--max-vms=2")
    for turn in range(16):
        shape = {"memory_mib": backend.memory_mib + 2 * turn}
        assert host.spawn("asks", **shape)["source"] == "boot"
        wait_a_while(turn * 0.006)
        assert host.spawn("needs-it", **shape)["source"] in ("boot", "snapshot")
        for vm_id in ("asks", "needs-it"):
            host.client.delete(vm_id)
    assert host.count("builds", "put_off") > 0
    assert host.count("builds", "failed") == 0
    host.assert_clean()


def test_R02_R20_a_kill_while_one_is_built_leaves_nothing(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """At any moment. What is kept is whole, and a VM starts from it."""
    host = Host(start, connect, backend)
    for turn in range(16):
        shape = {"memory_mib": backend.memory_mib + 2 * turn}
        host.spawn("asks", **shape)
        wait_a_while(turn * 0.006)
        front = host.daemon.open_front()
        (kill_front if turn % 2 else kill_root)(host.daemon)
        host.daemon.wait_ended(front)
        host.again()
        assert [one["id"] for one in host.client.list(limit=500)] == ["asks"]
        assert len(host.daemon.vmms()) == 1, "no template outlives the service"
        assert host.client.exec("asks", ["echo", "on"]).out == "on\n"
        folder = host.daemon.home / "state" / "snapshots"
        assert all(not path.name.startswith(".") for path in folder.iterdir())
        assert list((host.daemon.home / "state" / "staging").iterdir()) == []
        assert len(host.kept()) <= 8
        if host.source("next", **shape) == "boot":
            host.wait_built(1)
            assert host.source("then", **shape) == "snapshot"
        host.client.delete("asks")
    host.assert_clean()


def test_R20_what_waits_in_a_pool_started_from_one(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    line = f"--pool={backend.image},memory-mib={backend.memory_mib},min=1"
    host = Host(start, connect, backend, line)

    def claim(vm_id: str) -> int:
        wait_until(lambda: total(scrape(host.client)[1], "motte_pool_vms") == 1)
        made = host.spawn(vm_id)
        assert made["source"] == "pool"
        generation: int = made["guest"]["generation"]
        return generation

    host.wait_built(1)  # the pool's first one asked for it
    assert [claim("first"), claim("second"), claim("third")] == [0, 1, 1]
    host.client.expect(200, "POST", "/admin/cordon")
    wait_until(lambda: total(scrape(host.client)[1], "motte_pool_vms") == 0)
    host.assert_clean()


def test_R05_what_became_of_them_is_counted(host: Host) -> None:
    host.prepare()
    host.source("second")
    assert host.count("spawns", "missing") == 1
    assert host.count("spawns", "restored") == 1
    assert host.count("builds", "built") == 1
    for family, result in (
        ("spawns", "refused"), ("spawns", "failed"), ("builds", "failed"), ("builds", "put_off"),
    ):  # fmt: skip
        assert host.count(family, result) == 0
    text, _ = scrape(host.client)
    assert 'motte_vms{state="running"} 0' in text
