"""R02, R04: a request with an Idempotency-Key may be sent again, whatever became of the first."""

import contextlib
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.traced import Point, TracedDaemon
from harness.waiting import wait_until
from test_tcp import ALICE, BOB, bearer, free_port, write_tokens


def key(name: str = "") -> dict[str, str]:
    return {"Idempotency-Key": name or str(uuid.uuid4())}


def spec(backend: Backend, **more: Any) -> dict[str, Any]:
    return {"memory_mib": backend.memory_mib, **more}


def test_R02_a_create_sent_again_gives_the_first_vm(client: Client, backend: Backend) -> None:
    mine, body = key(), spec(backend)
    first = client.expect(201, "POST", "/vms", json=body, headers=mine)
    again = client.expect(201, "POST", "/vms", json=body, headers=mine)
    assert (again.content, again.headers["location"]) == (first.content, first.headers["location"])
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(client.list()) == 1
    client.delete(first.json()["id"])
    client.expect(201, "POST", "/vms", json=body, headers=mine)
    assert client.list() == [], "what was answered stays answered"


def test_R04_twins_in_parallel_make_one_vm(
    client: Client, daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    mine, body = key(), spec(backend)
    clients = [connect(daemon) for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(
            pool.map(lambda c: c.request("POST", "/vms", json=body, headers=mine), clients)
        )
    made = {one.json()["instance"] for one in answers if one.status_code == 201}
    busy = [one.json()["code"] for one in answers if one.status_code != 201]
    assert len(made) == 1
    assert set(busy) <= {"idempotency_key_in_use"}
    assert [vm["instance"] for vm in client.list()] == list(made)
    again = client.expect(201, "POST", "/vms", json=body, headers=mine)
    assert again.json()["instance"] in made


def test_R04_a_key_is_one_requests_and_one_callers(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path, backend: Backend
) -> None:
    port = free_port()
    start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    alice, bob = (
        connect(f"http://127.0.0.1:{port}", bearer(token) | key("shared")) for token in (ALICE, BOB)
    )
    body = spec(backend, id="same")
    first = alice.expect(201, "POST", "/vms", json=body).json()
    reused = (422, "idempotency_key_reused", "POST")
    alice.problem(*reused, "/vms", json=spec(backend, id="other"))
    alice.problem(*reused, "/vms/same/keepalive", json={})
    alice.problem(*reused, "/vms/same/pause")
    assert alice.get("same")["state"] == "running"
    second = bob.expect(201, "POST", "/vms", json=body)
    assert second.json()["owner"] == "bob"
    assert second.json()["instance"] != first["instance"]
    assert alice.expect(201, "POST", "/vms", json=body).json() == first


def test_R04_a_create_that_failed_leaves_its_key_free(client: Client, backend: Backend) -> None:
    mine = key()
    client.create(id="taken", memory_mib=backend.memory_mib)
    body = spec(backend, id="taken")
    client.problem(409, "id_taken", "POST", "/vms", json=body, headers=mine)
    client.delete("taken")
    response = client.expect(201, "POST", "/vms", json=body, headers=mine)
    assert "idempotent-replayed" not in response.headers
    wrong = {"memory_mib": 1}
    for _ in range(2):
        client.problem(400, "out_of_range", "POST", "/vms", json=wrong, headers=key("wrong"))


def test_R04_an_async_create_is_told_of_again_unless_it_was_undone(
    client: Client, backend: Backend
) -> None:
    mine, body = key() | {"Prefer": "respond-async"}, spec(backend, id="later")
    first = client.expect(202, "POST", "/vms", json=body, headers=mine)
    client.delete("later")
    second = client.request("POST", "/vms", json=body, headers=mine)
    assert second.status_code == 202
    if second.json()["instance"] == first.json()["instance"]:
        return  # it ran before the DELETE came
    client.wait_state("later", "running")
    third = client.expect(202, "POST", "/vms", json=body, headers=mine)
    assert third.content == second.content
    assert len(client.list()) == 1


def test_R04_a_command_runs_once(client: Client, backend: Backend) -> None:
    client.create(id="vm", memory_mib=backend.memory_mib)
    mine = key()
    path, body = "/vms/vm/exec", {"argv": ["/bin/echo", "once"]}
    first = client.expect(200, "POST", path, json=body, headers=mine)
    again = client.expect(200, "POST", path, json=body, headers=mine)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    slow, late = {"argv": ["/bin/sleep", "30"], "timeout_ms": 300}, key()
    first = client.request("POST", path, json=slow, headers=late)
    assert first.json()["code"] == "exec_timeout"
    again = client.request("POST", path, json=slow, headers=late)
    assert again.content == first.content, "it may have done something"
    large, long = {"argv": backend.flood(40_000)}, key()
    client.expect(200, "POST", path, json=large, headers=long)
    client.problem(409, "idempotency_answer_lost", "POST", path, json=large, headers=long)


@pytest.mark.testguest
def test_R04_snapshots_and_forks_are_made_once(client: Client, backend: Backend) -> None:
    client.create(id="origin", memory_mib=backend.memory_mib)
    for path, body in (("snapshots", {}), ("fork", {"count": 2})):
        mine = key()
        first = client.expect(201, "POST", f"/vms/origin/{path}", json=body, headers=mine)
        again = client.expect(201, "POST", f"/vms/origin/{path}", json=body, headers=mine)
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert len(client.list()) == 3
    kept = client.expect(200, "GET", "/snapshots").json()["snapshots"]
    assert len(kept) == 1
    client.expect(204, "DELETE", f"/snapshots/{kept[0]['id']}")


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "ä"])
def test_R04_a_key_that_is_none_is_refused(client: Client, backend: Backend, bad: str) -> None:
    headers = [("Idempotency-Key", bad.encode("latin-1"))]
    client.problem(400, "bad_request", "POST", "/vms", json=spec(backend), headers=headers)
    twice = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    client.problem(400, "bad_request", "POST", "/vms", json=spec(backend), headers=twice)
    assert client.list() == []


# -- kills ------------------------------------------------------------------------------------


@pytest.fixture
def traced(start: object, backend: Backend) -> Iterator[TracedDaemon]:
    """`start` sees to it that the shared daemon stands still meanwhile."""
    daemon = TracedDaemon(backend)
    yield daemon
    daemon.close()


def points_of(daemon: TracedDaemon, contract: Contract, body: dict[str, Any]) -> list[Point]:
    """Where the front writes the inventory and the answer while a VM is created with a key."""
    tracer = daemon.start_under("record")
    client = Client(contract, str(daemon.socket_path))
    tracer.arm()
    made = client.expect(201, "POST", "/vms", json=body, headers=key())
    found = [point for point in tracer.points() if point.name.startswith("front ")]
    client.delete(made.json()["id"])
    client.close()
    daemon.stop()
    return [point for point in found if "motte.db" in point.name]


@pytest.mark.testguest
def test_R02_R04_a_create_that_a_kill_cut_off_is_sent_again_and_there_is_one_vm(
    traced: TracedDaemon, contract: Contract, backend: Backend
) -> None:
    """The id is the service's: a second VM would not be refused."""
    body = spec(backend)
    points = points_of(traced, contract, body)
    assert len(points) >= 3, "the key, the row, the commit"
    finished = 0
    tried = points[::-2]  # with the last: after the commit, before the answer
    for point in tried:
        tracer = traced.start_under("after+", point)
        front, mine = traced.open_front(), key()
        client = Client(contract, str(traced.socket_path))
        tracer.arm()
        with pytest.raises(httpx.TransportError):
            client.request("POST", "/vms", json=body, headers=mine)
        tracer.wait("killed")
        traced.wait_ended(front)
        traced.start_plain()
        client.close()
        client = Client(contract, str(traced.socket_path))
        before = [vm["instance"] for vm in client.list()]
        again = client.expect(201, "POST", "/vms", json=body, headers=mine)
        replayed = "idempotent-replayed" in again.headers
        assert before == ([again.json()["instance"]] if replayed else []), str(point)
        assert [vm["instance"] for vm in client.list()] == [again.json()["instance"]], str(point)
        assert client.exec(again.json()["id"], ["/bin/echo", "on"]).out == "on\n"
        finished += replayed
        client.delete(again.json()["id"])
        client.close()
        traced.stop()
    assert 0 < finished < len(tried), "kills before and after the commit"


def keys(daemon: Daemon) -> int:
    """In the inventory; to ask with one would take it."""
    uri = f"file:{daemon.state_dir}/front/motte.db?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
        return int(connection.execute("SELECT count(*) FROM keys").fetchone()[0])


@pytest.mark.testguest
def test_R04_a_command_that_a_kill_cut_off_is_not_run_again(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="vm", memory_mib=backend.memory_mib)
    mine, body = key(), {"argv": ["/bin/sleep", "60"], "timeout_ms": 90_000}
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(
            connect(daemon).request, "POST", "/vms/vm/exec", json=body, headers=mine
        )
        in_use = "idempotency_key_in_use"
        wait_until(lambda: keys(daemon) == 1, what="the command has not begun")
        client.problem(409, in_use, "POST", "/vms/vm/exec", json=body, headers=mine)
        front = daemon.open_front()
        daemon.process.kill()  # type: ignore[union-attr]
        daemon.wait_ended(front)
        assert isinstance(cut_off.exception(timeout=30), httpx.TransportError)
    daemon.start()
    client = connect(daemon)
    lost = (409, "idempotency_answer_lost", "POST", "/vms/vm/exec")
    client.problem(*lost, json=body, headers=mine)
