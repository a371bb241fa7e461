"""Waiting for a VM, changing it, and what it takes."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.waiting import wait_until
from test_tcp import ALICE, BOB, bearer, free_port, write_tokens

LONG_S = 60


@pytest.fixture
def vm(client: Client, backend: Backend) -> str:
    client.create(id="vm", memory_mib=backend.memory_mib, labels={"run": "42", "kept": "yes"})
    return "vm"


def wait(client: Client, query: str) -> Callable[[], httpx.Response]:
    return lambda: client.request("GET", f"/vms/vm/wait?{query}&timeout_s={LONG_S}")


def test_R03_a_wait_is_answered_when_it_is_so(
    client: Client, daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    began = time.monotonic()
    client.expect(
        202,
        "POST",
        "/vms",
        json={"id": "vm", "memory_mib": backend.memory_mib},
        headers={"Prefer": "respond-async"},
    )
    running = client.expect(200, "GET", f"/vms/vm/wait?timeout_s={LONG_S}").json()
    assert running["state"] == "running"
    with ThreadPoolExecutor(3) as pool:
        paused: list[Future[httpx.Response]] = [
            pool.submit(wait(connect(daemon), "state=paused")) for _ in range(2)
        ]
        client.pause("vm")
        assert [one.result(LONG_S).json()["state"] for one in paused] == ["paused"] * 2
        ended = pool.submit(wait(connect(daemon), "state=exited"))
        client.delete("vm")
        answer = ended.result(LONG_S)
    assert (answer.status_code, answer.json()["code"]) == (404, "vm_gone")
    assert answer.json()["context"]["reason"] == "deleted"
    assert time.monotonic() - began < LONG_S, "nobody waited for the time to be up"


def test_R03_a_wait_that_cannot_come_true_ends(client: Client, vm: str) -> None:
    assert client.expect(200, "GET", "/vms/vm/wait?state=running").json()["state"] == "running"
    begin = time.monotonic()
    late = client.expect(200, "GET", "/vms/vm/wait?state=paused&timeout_s=1").json()
    assert late["state"] == "running"
    assert time.monotonic() - begin >= 1
    client.problem(404, "vm_not_found", "GET", "/vms/nobody/wait")
    for bad in ("state=here", "timeout_s=61", "timeout_s=-1", "timeout_s=x", "what=1"):
        client.problem(400, "invalid_query", "GET", f"/vms/vm/wait?{bad}")
    client.delete(vm)
    client.problem(404, "vm_gone", "GET", "/vms/vm/wait")


@pytest.mark.testguest
def test_R03_those_who_wait_hold_up_nobody_nor_a_stop(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    most = 128
    daemon = start()
    client = connect(daemon)
    client.create(id="vm", memory_mib=backend.memory_mib)
    answers: list[httpx.Response] = []
    busy = threading.Event()

    def one() -> None:
        asks = connect(daemon)
        answers.append(wait(asks, "state=paused")())
        if answers[-1].status_code == 503:
            busy.set()

    threads = [threading.Thread(target=one) for _ in range(most + 1)]
    for thread in threads:
        thread.start()
    assert busy.wait(LONG_S), "one more than may wait is told so"
    assert client.exec("vm", ["/bin/echo", "on"]).out == "on\n"
    client.create(id="other", memory_mib=backend.memory_mib)
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begin < 8, "a stop waits for none of them"
    for thread in threads:
        thread.join(LONG_S)
    assert len(answers) == most + 1
    told = [one.json()["state"] for one in answers if one.status_code == 200]
    assert told == ["running"] * most


def test_R02_a_patch_changes_labels_and_life(client: Client, vm: str) -> None:
    before = client.get(vm)
    change = {"labels": {"run": None, "stage": "done"}}
    after = client.expect(200, "PATCH", "/vms/vm", json=change).json()
    assert after["labels"] == {"kept": "yes", "stage": "done"}
    assert after["expires_at"] == before["expires_at"]
    assert client.list(label="stage=done") == [after]
    assert client.expect(200, "PATCH", "/vms/vm", json={}).json() == after
    longer = client.expect(200, "PATCH", "/vms/vm", json={"ttl_s": 7200}).json()
    assert longer["ttl_s"] == 7200
    assert longer["expires_at"] > before["expires_at"]
    assert client.get(vm) == longer
    client.expect(200, "PATCH", "/vms/vm", json={"ttl_s": 1})
    ended = client.request("GET", f"/vms/vm/wait?state=exited&timeout_s={LONG_S}")
    assert ended.json()["context"]["reason"] == "ttl"
    client.problem(404, "vm_gone", "PATCH", "/vms/vm", json={})


def test_R07_a_patch_that_cannot_be_changes_nothing(client: Client, vm: str) -> None:
    before = client.get(vm)
    many = {f"l{number}": "x" for number in range(31)}  # with the two that are there
    for code, body in (
        ("wrong_type", {"labels": {"a": 1}}),
        ("invalid_value", {"labels": {"a b": "x"}}),
        ("out_of_range", {"labels": many}),
        ("out_of_range", {"labels": {"a": "x" * 5000}}),
        ("out_of_range", {"ttl_s": 0, "labels": {"a": "x"}}),
        ("wrong_type", {"ttl_s": None}),
        ("unknown_field", {"image": "other"}),
    ):
        client.problem(400, code, "PATCH", "/vms/vm", json=body)
    assert client.get(vm) == before


def test_R02_patches_at_once_undo_none_of_each_other(
    client: Client, vm: str, daemon: Daemon, connect: Callable[..., Client]
) -> None:
    def patch(number: int) -> None:
        change = {"labels": {f"l{number}": str(number)}}
        connect(daemon).expect(200, "PATCH", "/vms/vm", json=change)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(patch, range(24)))
    assert len(client.get(vm)["labels"]) == 26


def test_R26_stats_move_with_what_a_vm_does(client: Client, vm: str, backend: Backend) -> None:
    first = client.expect(200, "GET", "/vms/vm/stats").json()
    assert 0 < first["memory_bytes"] < 2 * backend.memory_mib << 20
    assert first["pids"] > 0
    assert first["oom_kills"] == 0
    assert first["disk_bytes"] == 0, "it has no disk"

    def moved() -> bool:
        """A kernel that counts ticks may miss a short one."""
        client.exec(vm, backend.flood(100_000))
        now = client.expect(200, "GET", "/vms/vm/stats").json()
        return bool(now["cpu_us"] > first["cpu_us"])

    wait_until(moved, what="its processor time stands still")
    client.pause(vm)
    assert client.expect(200, "GET", "/vms/vm/stats").json()["pids"] > 0
    client.delete(vm)
    client.problem(404, "vm_gone", "GET", "/vms/vm/stats")


def test_R11_nobody_waits_for_changes_or_measures_anothers(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path, backend: Backend
) -> None:
    port = free_port()
    start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    alice, bob = (connect(f"http://127.0.0.1:{port}", bearer(token)) for token in (ALICE, BOB))
    alice.create(id="vm", memory_mib=backend.memory_mib)
    bob.problem(404, "vm_not_found", "GET", "/vms/vm/wait")
    bob.problem(404, "vm_not_found", "GET", "/vms/vm/stats")
    bob.problem(404, "vm_not_found", "PATCH", "/vms/vm", json={"labels": {"mine": "now"}})
    assert alice.get("vm")["labels"] == {}


@pytest.mark.testguest
def test_R01_snapshots_are_listed_by_label(client: Client, vm: str) -> None:
    made = [
        client.expect(201, "POST", "/vms/vm/snapshots", json={"labels": labels}).json()
        for labels in ({"k": "1"}, {"k": "2"}, {"k": "2"}, {})
    ]
    ids = [one["id"] for one in made]
    first = client.expect(200, "GET", "/snapshots?label=k%3D2&limit=1")
    assert [one["id"] for one in first.json()["snapshots"]] == [ids[1]]
    second = client.expect(200, "GET", first.links["next"]["url"])
    assert [one["id"] for one in second.json()["snapshots"]] == [ids[2]]
    assert second.json()["next_cursor"] is None
    client.problem(400, "invalid_query", "GET", "/snapshots?state=running")
    for one in ids:
        client.expect(204, "DELETE", f"/snapshots/{one}")
