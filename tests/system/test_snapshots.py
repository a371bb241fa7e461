"""Snapshots and forks: what was kept goes on, as another machine, and nothing is left of either."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client, Refused
from harness.daemon import Daemon
from harness.kills import kill_front, kill_root
from harness.waiting import wait_until
from test_pause import later, wait_a_while
from test_tcp import ALICE, BOB, bearer, free_port, write_tokens

pytestmark = pytest.mark.testguest

CLOCK_S = 0.05
OLD_S = 60


@pytest.fixture
def vm(client: Client, backend: Backend) -> str:
    client.create(id="origin", memory_mib=backend.memory_mib)
    return "origin"


def take(client: Client, vm_id: str, **body: object) -> dict[str, Any]:
    made: dict[str, Any] = client.expect(201, "POST", f"/vms/{vm_id}/snapshots", json=body).json()
    return made


@pytest.fixture
def snapshot(client: Client, vm: str) -> Iterator[dict[str, Any]]:
    made = take(client, vm, labels={"stage": "ready"})
    yield made
    for one in client.list(limit=500):
        client.delete(one["id"])
    client.expect(204, "DELETE", f"/snapshots/{made['id']}")


def test_R21_what_was_kept_goes_on_in_another_vm(
    client: Client, vm: str, snapshot: dict[str, Any], backend: Backend
) -> None:
    assert (snapshot["vm"], snapshot["labels"]) == (vm, {"stage": "ready"})
    assert 0 < snapshot["bytes"] < 32 << 20, "zeros take nothing"
    made = client.create(id="clone", snapshot=snapshot["id"])
    assert (made["source"], made["snapshot"]) == ("snapshot", snapshot["id"])
    assert made["memory_mib"] == backend.memory_mib
    assert made["guest"]["generation"] == 1
    assert client.exec("clone", ["echo", "on"]).out == "on\n"
    assert client.exec(vm, ["echo", "still"]).out == "still\n"
    report = client.expect(200, "GET", "/vms/clone/isolation").json()
    assert report["ok"], [line for line in report["lines"] if line["state"] == "wrong"]
    problem = client.problem(409, "snapshot_in_use", "DELETE", f"/snapshots/{snapshot['id']}")
    assert "clone" in problem["detail"]
    assert client.expect(200, "GET", f"/snapshots/{snapshot['id']}").json() == snapshot
    assert client.expect(200, "GET", "/snapshots").json()["snapshots"] == [snapshot]


def test_R21_a_snapshot_of_what_was_restored_is_of_the_next_generation(
    client: Client, snapshot: dict[str, Any]
) -> None:
    client.create(id="child", snapshot=snapshot["id"])
    second = take(client, "child")
    made = client.create(id="grandchild", snapshot=second["id"])
    assert made["guest"]["generation"] == 2
    assert client.exec("grandchild", ["echo", "on"]).out == "on\n"
    client.delete("grandchild")
    client.expect(204, "DELETE", f"/snapshots/{second['id']}")


def test_R21_each_snapshot_of_a_vm_is_whole(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """Firecracker forgets with each what was written before."""
    daemon = start()
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    vms = ["origin"]
    for turn, of in enumerate(("origin", "origin", "clone-0", "clone-0", "origin", "clone-3")):
        if turn == 4:
            daemon.stop()
            daemon.start()
            client = connect(daemon)
        made = take(client, of)
        vms.append(client.create(id=f"clone-{turn}", snapshot=made["id"])["id"])
        assert client.exec(vms[-1], ["echo", "on"]).out == "on\n"
    for vm_id in vms:
        assert client.exec(vm_id, ["echo", "still"]).out == "still\n"
        client.delete(vm_id)
    for one in client.expect(200, "GET", "/snapshots").json()["snapshots"]:
        client.expect(204, "DELETE", f"/snapshots/{one['id']}")
    daemon.assert_no_leftovers()


def test_R20_forks_are_all_there_and_their_snapshot_is_not(
    client: Client, daemon: Daemon, vm: str
) -> None:
    forks = client.expect(201, "POST", f"/vms/{vm}/fork", json={"count": 3}).json()["vms"]
    assert len({fork["instance"] for fork in forks}) == 3
    for fork in forks:
        assert client.exec(fork["id"], ["echo", "on"]).out == "on\n"
    assert client.expect(200, "GET", "/snapshots").json()["snapshots"] == []
    assert list((daemon.home / "state" / "snapshots").iterdir()) == []


def test_R04_forks_that_are_too_many_are_none(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start(["--max-vms=3"])
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    client.problem(503, "capacity_exhausted", "POST", "/vms/origin/fork", json={"count": 3})
    assert [one["id"] for one in client.list(limit=500)] == ["origin"]
    assert len(daemon.vmms()) == 1
    assert list((daemon.home / "state" / "snapshots").iterdir()) == []
    forks = client.expect(201, "POST", "/vms/origin/fork", json={"count": 2}).json()["vms"]
    for fork in (*forks, {"id": "origin"}):
        assert client.exec(fork["id"], ["echo", "on"]).out == "on\n"
        client.delete(fork["id"])
    daemon.assert_no_leftovers()


def test_R11_the_snapshot_of_forks_is_nobodys_to_use(
    client: Client, daemon: Daemon, connect: Callable[..., Client], vm: str
) -> None:
    """While forks are made their VMs name it."""
    with ThreadPoolExecutor(1) as pool:
        forking = pool.submit(
            connect(daemon).expect, 201, "POST", f"/vms/{vm}/fork", json={"count": 16}
        )
        seen: list[str] = []

        def named() -> bool:
            seen[:] = [one["snapshot"] for one in client.list(limit=500) if one["snapshot"]]
            return bool(seen) or forking.done()

        wait_until(named)
        assert seen
        client.problem(404, "snapshot_not_found", "GET", f"/snapshots/{seen[0]}")
        client.problem(404, "snapshot_not_found", "DELETE", f"/snapshots/{seen[0]}")
        client.problem(404, "snapshot_not_found", "POST", "/vms", json={"snapshot": seen[0]})
        assert len(forking.result().json()["vms"]) == 16


def test_R21_a_paused_vm_stays_paused(client: Client, vm: str) -> None:
    client.expect(200, "POST", f"/vms/{vm}/pause")
    made = take(client, vm)
    assert client.expect(200, "GET", f"/vms/{vm}").json()["state"] == "paused"
    client.create(id="clone", snapshot=made["id"])
    assert client.exec("clone", ["echo", "runs"]).out == "runs\n"
    client.delete("clone")
    client.expect(200, "POST", f"/vms/{vm}/resume")
    assert client.exec(vm, ["echo", "on"]).out == "on\n"
    client.expect(204, "DELETE", f"/snapshots/{made['id']}")


def test_R02_snapshots_outlive_the_service(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    made = take(client, "origin")
    client.create(id="clone", snapshot=made["id"])
    daemon.stop()
    daemon.start()
    client = connect(daemon)
    assert client.exec("clone", ["echo", "on"]).out == "on\n"
    assert client.expect(200, "GET", f"/snapshots/{made['id']}").json() == made
    client.create(id="second", snapshot=made["id"])
    assert client.exec("second", ["echo", "on"]).out == "on\n"
    again = take(client, "origin")
    for vm_id in ("clone", "second", "origin"):
        client.delete(vm_id)
    for one in (made, again):
        client.expect(204, "DELETE", f"/snapshots/{one['id']}")
    daemon.assert_no_leftovers()


def make_until_it_dies(caller: Client, path: str, body: dict[str, int]) -> Future[None]:
    """Returns when the first was made."""
    answers: list[int] = []

    def make() -> None:
        try:
            while True:
                answers.append(caller.request("POST", path, json=body).status_code)
        except httpx.TransportError:
            return

    makes = later(make)
    wait_until(lambda: 201 in answers)
    return makes


@pytest.mark.parametrize(("what", "body"), [("snapshots", {}), ("fork", {"count": 3})])
def test_R02_R20_a_kill_while_snapshots_and_forks_are_made(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    what: str,
    body: dict[str, int],
) -> None:
    """At any moment: the VM runs on, there is what the inventory says and nothing else, and of a
    fork there are all or none."""
    daemon = start()
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    for turn in range(8):
        makes = make_until_it_dies(connect(daemon), f"/vms/origin/{what}", body)
        wait_a_while(turn * 0.007)
        front = daemon.open_front()
        (kill_front if turn % 2 else kill_root)(daemon)
        daemon.wait_ended(front)
        makes.result(timeout=30)
        daemon.start()
        client = connect(daemon)
        assert client.exec("origin", ["echo", "on"]).out == "on\n"
        assert client.expect(200, "GET", "/vms/origin").json()["state"] == "running"
        listed = client.expect(200, "GET", "/snapshots").json()["snapshots"]
        kept = {path.name for path in (daemon.home / "state" / "snapshots").iterdir()}
        assert kept == {one["id"] for one in listed}
        forks = client.list(limit=500)
        assert (len(forks) - 1) % body.get("count", 1) == 0
        for fork in forks:
            assert client.exec(fork["id"], ["echo", "on"]).out == "on\n"
            if fork["id"] != "origin":
                client.delete(fork["id"])
        for one in listed:
            client.expect(204, "DELETE", f"/snapshots/{one['id']}")
    client.delete("origin")
    daemon.assert_no_leftovers()


def test_R09_what_makes_no_sense_is_refused(client: Client, snapshot: dict[str, Any]) -> None:
    for field in ("image", "vcpus", "memory_mib", "disk_mib", "seccomp"):
        value = "testguest" if field in ("image", "seccomp") else 256
        body = {"snapshot": snapshot["id"], field: value}
        assert field in client.problem(400, "invalid_value", "POST", "/vms", json=body)["detail"]
    gone = {"snapshot": "a" * 20}
    client.problem(404, "snapshot_not_found", "POST", "/vms", json=gone)
    client.problem(404, "snapshot_not_found", "GET", f"/snapshots/{'a' * 20}")
    client.problem(404, "snapshot_not_found", "DELETE", f"/snapshots/{'a' * 20}")
    client.problem(404, "vm_not_found", "POST", "/vms/nobody/snapshots", json={})
    client.problem(400, "out_of_range", "POST", "/vms/origin/fork", json={"count": 17})


def test_R21_no_command_is_cut_off_by_a_snapshot(
    client: Client, daemon: Daemon, connect: Callable[..., Client], vm: str
) -> None:
    """Commands without end, while snapshots are made: those that come meanwhile wait for them."""
    failures: list[str] = []
    over = threading.Event()
    ran = 0

    def run() -> None:
        nonlocal ran
        other = connect(daemon)
        while not over.is_set():
            try:
                assert other.exec(vm, ["echo", "on"]).out == "on\n"
                ran += 1
            except (AssertionError, Refused) as error:
                failures.append(str(error))
            over.wait(0.005)  # else one would run whenever a snapshot is asked for

    thread = threading.Thread(target=run)
    thread.start()
    made: list[str] = []
    wait_until(lambda: bool(failures) or try_to_take(client, vm, made) >= 5, what="always busy")
    over.set()
    thread.join()
    assert failures == []
    assert ran > len(made)
    for one in made:
        client.expect(204, "DELETE", f"/snapshots/{one}")


def try_to_take(client: Client, vm: str, made: list[str]) -> int:
    response = client.request("POST", f"/vms/{vm}/snapshots", json={})
    if response.status_code == 201:
        made.append(response.json()["id"])
    else:
        assert response.json()["code"] == "busy", response.text
    return len(made)


def test_R21_none_is_made_while_a_command_runs(
    client: Client, daemon: Daemon, connect: Callable[..., Client], vm: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(connect(daemon).exec, vm, ["sleep", "1"])
        wait_until(lambda: command.done() or try_to_take_busy(client, vm))
        assert not command.done()
        assert command.result().code == 0, "the one that ran is none the worse for it"


def try_to_take_busy(client: Client, vm: str) -> bool:
    response = client.request("POST", f"/vms/{vm}/snapshots", json={})
    if response.status_code != 201:
        assert response.json()["code"] == "busy", response.text
        return True
    client.expect(204, "DELETE", f"/snapshots/{response.json()['id']}")
    return False


def is_now(client: Client, vm: str) -> None:
    before = time.time()
    guest = int(client.exec(vm, ["wall"]).out) / 1000
    assert before - CLOCK_S <= guest <= time.time() + CLOCK_S


def test_R21_forks_differ_in_all_that_a_machine_can_be_told(client: Client, vm: str) -> None:
    origin = client.exec(vm, ["random"]).out
    forks = client.expect(201, "POST", f"/vms/{vm}/fork", json={"count": 2}).json()["vms"]
    words = set()
    for fork in forks:
        is_now(client, fork["id"])
        identity = client.exec(fork["id"], ["identity"]).out.split()
        assert identity[:2] == [fork["instance"], "1"]
        words |= {client.exec(fork["id"], ["random"]).out, *identity[2:]}
    assert len(words) == 2 * 3, "random, hostname and machine id of each"
    assert origin not in words


@pytest.mark.timeout(150)
def test_R21_a_minute_later_each_restore_answers_its_first_command(
    client: Client, snapshot: dict[str, Any]
) -> None:
    """A restore's first command goes over connections that the snapshot cut: nobody tries twice."""
    restores, end = 0, time.monotonic() + OLD_S
    while time.monotonic() < end:
        client.create(id="clone", snapshot=snapshot["id"])
        assert client.exec("clone", ["echo", "on"]).out == "on\n"
        client.delete("clone")
        restores += 1
    assert restores >= 100
    words = set()
    for name in ("one", "two"):
        client.create(id=name, snapshot=snapshot["id"])
        is_now(client, name)
        words |= {client.exec(name, ["random"]).out, client.exec(name, ["identity"]).out}
    assert len(words) == 2 * 2


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("refuse", "guest_protocol"),
        ("silent", "boot_timeout"),
        ("mute", "boot_timeout"),
        ("stay", "guest_protocol"),
    ],
)
def test_R04_R31_a_guest_that_does_not_become_another_is_no_vm(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    how: str,
    code: str,
) -> None:
    daemon = start(["--boot-timeout-ms=2000"])
    client = connect(daemon)
    client.create(id="origin", memory_mib=backend.memory_mib)
    assert client.exec("origin", ["betray", how]).code == 0
    made = take(client, "origin")
    body = {"id": "clone", "snapshot": made["id"]}
    problem = client.request("POST", "/vms", json=body).json()
    assert problem["code"] == code, problem
    assert len(daemon.vmms()) == 1
    client.problem(404, "vm_gone", "GET", "/vms/clone")
    assert client.exec("origin", ["echo", "on"]).out == "on\n"
    client.delete("origin")
    client.expect(204, "DELETE", f"/snapshots/{made['id']}")
    daemon.assert_no_leftovers()


def test_R11_a_snapshot_is_its_owners_alone(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, tmp_path: Path
) -> None:
    port = free_port()
    tokens = write_tokens(tmp_path)
    daemon = start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={tokens}"])
    address = f"http://127.0.0.1:{port}"
    alice, bob = (connect(address, bearer(token)) for token in (ALICE, BOB))
    alice.create(id="hers", memory_mib=backend.memory_mib)
    made = take(alice, "hers")
    theirs = f"/snapshots/{made['id']}"
    bob.problem(404, "vm_not_found", "POST", "/vms/hers/snapshots", json={})
    bob.problem(404, "vm_not_found", "POST", "/vms/hers/fork", json={})
    bob.problem(404, "snapshot_not_found", "GET", theirs)
    bob.problem(404, "snapshot_not_found", "DELETE", theirs)
    bob.problem(404, "snapshot_not_found", "POST", "/vms", json={"snapshot": made["id"]})
    assert bob.expect(200, "GET", "/snapshots").json()["snapshots"] == []
    assert alice.expect(200, "GET", "/snapshots").json()["snapshots"] == [made]
    root = connect(daemon)
    assert root.expect(200, "GET", theirs).json() == made
    root.problem(404, "snapshot_not_found", "POST", "/vms", json={"snapshot": made["id"]})
    alice.delete("hers")
    root.expect(204, "DELETE", theirs)
