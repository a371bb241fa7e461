"""Snapshots of Linux: VMs that go on from one point are machines of their own, on either
hypervisor; and what is QEMU's alone."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.kills import kill_front, kill_root
from harness.metrics import scrape, total
from harness.waiting import wait_until
from test_pause import wait_a_while
from test_pool import pool, waiting
from test_snapshots import make_until_it_dies

pytestmark = pytest.mark.linux

CLOCK_S = 0.05
BOOT_CLOCK_S = 1  # a boot sets it, in emulation by whole seconds, and then it runs by itself
SHELL = ["/bin/sh", "-c"]
FACTS = {
    "random": "od -An -N16 -tx1 /dev/urandom",
    "uuid": "cat /proc/sys/kernel/random/uuid",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "hostname": "cat /proc/sys/kernel/hostname",
    "machine id": "cat /etc/machine-id",
}


def take(client: Client, vm_id: str) -> dict[str, Any]:
    made: dict[str, Any] = client.expect(201, "POST", f"/vms/{vm_id}/snapshots", json={}).json()
    return made


def assert_right_at_once(client: Client, vm_id: str, within_s: float = CLOCK_S) -> None:
    """By its first command, and with nobody's second try."""
    before = time.time()
    guest = float(client.exec(vm_id, ["date", "+%s.%N"]).out)
    assert before - within_s <= guest <= time.time() + within_s


def facts(client: Client, vm_id: str) -> dict[str, str]:
    """Without a machine id where the image has none."""
    told = client.exec(vm_id, [*SHELL, "; ".join(FACTS.values())]).out.splitlines()
    return dict(zip(FACTS, told, strict=False))


def assert_all_differ(seen: list[dict[str, str]], facts: int = len(FACTS)) -> None:
    assert [len(told) for told in seen] == [facts] * len(seen), seen
    for name in seen[0]:
        assert len({told[name] for told in seen}) == len(seen), f"{name}: {seen}"


@pytest.mark.core
def test_R21_two_vms_of_one_snapshot_are_two_machines(client: Client, backend: Backend) -> None:
    client.create(id="origin", memory_mib=backend.memory_mib, disk_mib=512)
    client.exec("origin", [*SHELL, "echo kept >/root/word; cat /proc/sys/kernel/random/uuid |"
                                   " tr -d - >/etc/machine-id; sync"])  # fmt: skip
    made = take(client, "origin")
    client.exec("origin", [*SHELL, "echo later >/root/word; sync"])
    seen = [facts(client, "origin")]
    for vm_id in ("one", "two"):
        vm = client.create(id=vm_id, snapshot=made["id"])
        assert (vm["source"], vm["guest"]["generation"]) == ("snapshot", 1)
        assert_right_at_once(client, vm_id)
        seen.append(facts(client, vm_id))
        assert client.exec(vm_id, ["cat", "/root/word"]).out == "kept\n"
        client.exec(vm_id, [*SHELL, f"echo {vm_id} >/root/word; sync"])
        report = client.expect(200, "GET", f"/vms/{vm_id}/isolation").json()
        assert report["ok"], [line for line in report["lines"] if line["state"] == "wrong"]
    assert_all_differ(seen)
    client.problem(409, "snapshot_in_use", "DELETE", f"/snapshots/{made['id']}")
    for vm_id in ("one", "two"):
        assert client.exec(vm_id, ["cat", "/root/word"]).out == f"{vm_id}\n"
        client.delete(vm_id)
    assert client.exec("origin", ["cat", "/root/word"]).out == "later\n"
    client.expect(204, "DELETE", f"/snapshots/{made['id']}")


@pytest.mark.emulated
def test_R20_R21_a_qemu_is_forked_paused_and_forked_again(client: Client, backend: Backend) -> None:
    """One that has written a snapshot stands differently from one that was paused."""
    client.create(id="origin", memory_mib=backend.memory_mib)
    client.exec("origin", [*SHELL, "cat /proc/sys/kernel/random/uuid >/etc/machine-id"])
    seen: list[dict[str, str]] = []
    for paused in (False, True, True):
        if paused:
            client.expect(200, "POST", "/vms/origin/pause")
        count = 1 if seen else 2
        forked = client.expect(201, "POST", "/vms/origin/fork", json={"count": count}).json()
        state = client.expect(200, "GET", "/vms/origin").json()["state"]
        assert state == ("paused" if paused else "running")
        for fork in forked["vms"]:
            assert_right_at_once(client, fork["id"])
            seen.append(facts(client, fork["id"]))
            client.delete(fork["id"])
    assert_all_differ(seen)
    client.expect(200, "POST", "/vms/origin/resume")
    assert client.exec("origin", ["echo", "on"]).out == "on\n"
    assert client.expect(200, "GET", "/snapshots").json()["snapshots"] == []


@pytest.mark.emulated
def test_R02_R20_a_qemu_runs_on_whatever_ends_its_snapshot(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """A kill at any moment, a refusal, a restart; and what was restored is kept in its turn."""
    daemon = start(["--max-snapshots=2"])
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    for turn, kill in enumerate((kill_front, kill_root, kill_front, kill_root)):
        makes = make_until_it_dies(connect(daemon), "/vms/origin/snapshots", {})
        wait_a_while(turn * 0.06)
        front = daemon.open_front()
        kill(daemon)
        daemon.wait_ended(front)
        makes.result(timeout=60)
        daemon.start()
        client = connect(daemon)
        assert client.exec("origin", ["echo", "on"]).out == "on\n"
        assert client.expect(200, "GET", "/vms/origin").json()["state"] == "running"
        listed = client.expect(200, "GET", "/snapshots").json()["snapshots"]
        kept = {path.name for path in (daemon.home / "state" / "snapshots").iterdir()}
        assert kept == {one["id"] for one in listed}
        for one in listed[1:]:
            client.expect(204, "DELETE", f"/snapshots/{one['id']}")
    made = take(client, "origin")
    client.problem(503, "capacity_exhausted", "POST", "/vms/origin/snapshots", json={})
    assert client.exec("origin", ["echo", "on"]).out == "on\n"
    client.create(id="child", snapshot=made["id"])
    client.delete("origin")
    daemon.stop()
    daemon.start()
    client = connect(daemon)
    assert client.exec("child", ["echo", "on"]).out == "on\n"
    client.expect(204, "DELETE", f"/snapshots/{listed[0]['id']}")
    again = take(client, "child")
    client.delete("child")
    assert client.create(id="second", snapshot=again["id"])["guest"]["generation"] == 2
    assert client.exec("second", ["echo", "on"]).out == "on\n"
    client.delete("second")
    for one in (made, again):
        client.expect(204, "DELETE", f"/snapshots/{one['id']}")
    daemon.assert_no_leftovers()


@pytest.mark.core
def test_R21_a_linux_starts_from_a_snapshot_of_its_image(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """Taken as soon as its agent had said hello."""
    client = connect(start(["--image-snapshots=1"]))
    client.create(id="first", memory_mib=backend.memory_mib)
    built = {"family": "motte_image_snapshot_builds_total", "result": "built"}
    wait_until(lambda: total(scrape(client)[1], **built) == 1, backend.boot_timeout_ms / 1000)
    seen = []
    for vm_id in ("second", "third"):
        vm = client.create(id=vm_id, memory_mib=backend.memory_mib)
        assert (vm["source"], vm["snapshot"]) == ("snapshot", None)
        seen.append(facts(client, vm_id))
        client.delete(vm_id)
    assert_all_differ(seen, len(FACTS) - 1)  # there is no machine id to change


@pytest.mark.core
def test_R20_R21_a_linux_that_waits_is_there_at_once(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """Behind all guards, and as new as one that was made for who asks."""
    client = connect(start([f"--pool={pool(backend, min=1, max=1)}"]))
    patience_s = 2 * backend.boot_timeout_ms / 1000
    wait_until(lambda: waiting(client) == 1, patience_s, "none waits")
    vm = client.create(id="mine", memory_mib=backend.memory_mib)
    assert (vm["source"], vm["snapshot"]) == ("pool", None)
    assert_right_at_once(client, "mine", BOOT_CLOCK_S)
    assert client.exec("mine", ["python3", "-c", "print(6 * 7)"]).out == "42\n"
    assert client.expect(200, "GET", "/vms/mine/isolation").json()["ok"]
    client.delete("mine")
    wait_until(lambda: waiting(client) == 1, patience_s, "it was not filled again")
