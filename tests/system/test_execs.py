"""Commands as things of their own: begun, watched, fed, ended; and their ends with others."""

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.events import Event, Events
from harness.waiting import wait_until

FOREVER = ["/bin/sleep", "86400"]
LOG_MAX = 1024 * 1024
GIBIBYTE = 1024 * LOG_MAX
GROWTH_MIB = 16  # of one half: the ring, and what an allocator keeps


@pytest.fixture(scope="module")
def vm(shared: Daemon, contract: Contract, backend: Backend) -> Iterator[str]:
    client = Client(contract, str(shared.socket_path))
    client.create(id="watched", memory_mib=backend.memory_mib)
    yield "watched"
    client.delete("watched")
    client.close()


@pytest.fixture
def client(shared: Daemon, contract: object, connect: Callable[..., Client]) -> Client:
    return connect(shared)


def begin(client: Client, vm: str, argv: list[str], **more: Any) -> str:
    """The path of a command that runs."""
    response = client.expect(
        202,
        "POST",
        f"/vms/{vm}/execs",
        json={"argv": argv, "timeout_ms": 600000} | more,
        headers={"Prefer": "respond-async"},
    )
    path = str(response.headers["location"])
    assert path == f"/vms/{vm}/execs/{response.json()['id']}"
    return path


def get(client: Client, path: str) -> dict[str, Any]:
    body: dict[str, Any] = client.expect(200, "GET", path).json()
    return body


def feed(client: Client, path: str, offset: int, data: bytes, **more: Any) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    body: dict[str, Any] = client.expect(
        200, "POST", f"{path}/stdin", json={"offset": offset, "base64": text, **more}
    ).json()
    return body


def watch(daemon: Daemon, path: str, after: str | None = None) -> Events:
    return Events(daemon.socket_path, f"{path}/events", after)


def read_all(events: Events) -> tuple[bytes, dict[str, Any]]:
    """All of stdout, and the record at the end."""
    out = b""
    last: Event | None = None
    for event in events:
        last = event
        out += event.data if event.name == "stdout" else b""
    assert last is not None
    assert (last.name, last.id) == ("end", "end")
    return out, json.loads(last.raw)


@pytest.mark.core
def test_R27_begun_watched_and_read(client: Client, vm: str, shared: Daemon) -> None:
    path = begin(client, vm, ["/bin/echo", "hello"])
    with watch(shared, path) as events:
        assert events.response.getheader("content-type") == "text/event-stream"
        out, record = read_all(events)
    assert out == b"hello\n"
    assert (record["state"], record["exit_code"], record["output_bytes"]) == ("exited", 0, 6)
    body = get(client, path)
    assert (body["stdout"], body["stderr"], body["state"]) == ("hello\n", "", "exited")
    listed = client.expect(200, "GET", f"/vms/{vm}/execs").json()["execs"]
    assert listed[0]["id"] == body["id"]


def test_R27_waited_for_it_is_answered_with_its_end(
    client: Client, vm: str, backend: Backend
) -> None:
    body = client.expect(
        201, "POST", f"/vms/{vm}/execs", json={"argv": backend.exit_with(7)}
    ).json()
    assert (body["state"], body["exit_code"]) == ("exited", 7)
    body = client.expect(
        201, "POST", f"/vms/{vm}/execs", json={"argv": ["/bin/cat"], "stdin": "to begin with"}
    ).json()
    assert (body["stdout"], body["stdin_bytes"], body["stdin_open"]) == ("to begin with", 13, False)


def test_R31_its_time_is_up_whoever_waits(client: Client, vm: str) -> None:
    body = client.expect(
        201, "POST", f"/vms/{vm}/execs", json={"argv": FOREVER, "timeout_ms": 700}
    ).json()
    assert (body["state"], body["signal"], body["timed_out"]) == ("exited", 9, True)


def test_R31_open_input_does_not_hold_it_beyond_its_time(
    client: Client, vm: str, shared: Daemon
) -> None:
    path = begin(client, vm, ["/bin/cat"], stdin_open=True, timeout_ms=700)
    with watch(shared, path) as events:
        _, record = read_all(events)
    assert (record["signal"], record["timed_out"]) == (9, True)


def test_R31_no_command_and_no_reader_prolongs_a_life(
    client: Client, vm: str, shared: Daemon
) -> None:
    ends = client.get(vm)["expires_at"]
    path = begin(client, vm, ["/bin/cat"], stdin_open=True)
    feed(client, path, 0, b"x", eof=True)
    with watch(shared, path) as events:
        read_all(events)
    client.expect(200, "GET", f"/vms/{vm}/execs")
    client.expect(204, "DELETE", path)
    assert client.get(vm)["expires_at"] == ends


def test_R29_who_was_cut_off_goes_on_at_the_next_byte(
    client: Client, vm: str, shared: Daemon, backend: Backend
) -> None:
    """Dropped after each event that came, and taken up again: the same bytes as in one reading."""
    path = begin(client, vm, ["/bin/cat"], stdin_open=True)
    sent = bytes(range(256)) * 1200
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(lambda: read_all(watch(shared, path)))
        pieces, after, turns = b"", None, 0
        for at in range(0, len(sent), 30000):
            feed(client, path, at, sent[at : at + 30000])
            wanted = min(at + 30000, len(sent))
            while len(pieces) < wanted:
                with watch(shared, path, after) as events:
                    event = next(iter(events))
                assert event.name == "stdout"
                pieces += event.data
                after = event.id
                turns += 1
                assert event.id == str(len(pieces))
        feed(client, path, len(sent), b"", eof=True)
        with watch(shared, path, after) as events:
            rest, record = read_all(events)
        assert pieces + rest == sent
        assert turns >= len(sent) // 30000
        assert record["exit_code"] == 0
        assert whole.result(timeout=60)[0] == sent
    with watch(shared, path, "end") as events:
        assert events.status == 204
    with watch(shared, path, "17") as events:
        assert read_all(events)[0] == sent[17:]
    for wrong in (str(len(sent) + 1), "-1", "x", "1 2"):
        with watch(shared, path, wrong) as events:
            assert events.status == 400


def test_R31_output_that_nobody_reads_is_bounded_and_a_gap_is_told(
    client: Client, vm: str, shared: Daemon, backend: Backend
) -> None:
    count = 8 * LOG_MAX
    path = begin(client, vm, backend.flood(count))
    wait_until(lambda: get(client, path)["state"] == "exited", 120, "the flood did not end")
    with watch(shared, path) as events:
        seen = list(events)
    assert [event.name for event in seen[:1]] == ["gap"]
    dropped = json.loads(seen[0].raw)["dropped_bytes"]
    kept = b"".join(event.data for event in seen if event.name == "stdout")
    total = json.loads(seen[-1].raw)["output_bytes"]
    assert dropped + len(kept) == total >= count
    assert LOG_MAX // 2 < len(kept) <= LOG_MAX
    body = get(client, path)
    assert body["output_dropped_bytes"] == dropped
    with watch(shared, path, str(total - 100)) as events:
        assert read_all(events)[0] == kept[-100:]


def rss_mib(pid: int) -> float:
    return int(host.status_of(pid)["VmRSS"].split()[0]) / 1024


@pytest.mark.testguest  # Linux under emulation takes minutes
def test_R31_a_gibibyte_of_output_leaves_both_halves_as_small(
    client: Client, vm: str, shared: Daemon, backend: Backend
) -> None:
    """Watched, and waited for: each gets what is kept, and says that it is not all."""
    halves = {"root": shared.pid, "front": shared.front_pid}
    before = {half: rss_mib(pid) for half, pid in halves.items()}
    path = begin(client, vm, backend.flood(GIBIBYTE), timeout_ms=120_000)
    answer = client.exec(vm, backend.flood(64 * LOG_MAX), timeout_ms=120_000)
    assert answer.body["stdout_truncated"]
    with watch(shared, path) as events:
        came = sum(len(event.data) for event in events if event.name == "stdout")
    for half, pid in halves.items():
        assert rss_mib(pid) - before[half] < GROWTH_MIB, half
    body = get(client, path)
    assert (body["state"], body["exit_code"]) == ("exited", 0)
    assert body["output_bytes"] >= GIBIBYTE
    assert 0 < came <= body["output_bytes"]
    assert body["output_bytes"] - body["output_dropped_bytes"] <= LOG_MAX


@pytest.mark.testguest
def test_R31_an_agent_that_falls_silent_ends_a_watched_command_in_time(
    client: Client, vm: str, shared: Daemon
) -> None:
    began = time.monotonic()
    path = begin(client, vm, ["lie", "silent"], timeout_ms=500)
    with watch(shared, path) as events:
        _, record = read_all(events)
    assert (record["state"], record["reason"]) == ("lost", "guest_unresponsive")
    assert time.monotonic() - began < 12
    assert client.exec(vm, ["/bin/echo", "on"]).out == "on\n"


def test_R31_delete_ends_it_and_may_be_repeated(client: Client, vm: str, shared: Daemon) -> None:
    path = begin(client, vm, FOREVER)
    with watch(shared, path) as events:
        began = time.monotonic()
        for _ in range(3):
            client.expect(204, "DELETE", path)
        assert time.monotonic() - began < 10
        _, record = read_all(events)
    assert (record["state"], record["signal"], record["killed"]) == ("exited", 9, True)
    client.problem(404, "exec_not_found", "DELETE", path[:-12] + "a" * 12)


def test_R18_input_that_is_sent_again_is_not_read_twice(
    client: Client, vm: str, shared: Daemon
) -> None:
    path = begin(client, vm, ["/bin/cat"], stdin="in", stdin_open=True)
    assert feed(client, path, 2, b"put") == {"offset": 5, "open": True}
    assert feed(client, path, 2, b"put") == {"offset": 5, "open": True}
    assert feed(client, path, 0, b"input+") == {"offset": 6, "open": True}
    body = client.problem(
        409, "exec_stdin_conflict", "POST", f"{path}/stdin", json={"offset": 7, "text": "x"}
    )
    assert body["context"] == {"offset": 6, "open": True}
    for _ in range(2):
        assert feed(client, path, 6, b"", eof=True) == {"offset": 6, "open": False}
    with watch(shared, path) as events:
        assert read_all(events)[0] == b"input+"
    assert feed(client, path, 6, b"", eof=True) == {"offset": 6, "open": False}
    client.problem(409, "exec_ended", "POST", f"{path}/stdin", json={"offset": 6, "text": "x"})
    client.problem(
        400, "invalid_value", "POST", f"{path}/stdin", json={"offset": 6, "base64": "abc"}
    )
    client.problem(409, "exec_no_terminal", "POST", f"{path}/resize", json={"rows": 20, "cols": 20})


def test_R18_with_a_key_it_begins_once(client: Client, vm: str, shared: Daemon) -> None:
    key = {"Idempotency-Key": "a-command-that-begins-once", "Prefer": "respond-async"}
    body = {"argv": ["/bin/echo", "once"]}
    paths = [
        client.expect(202, "POST", f"/vms/{vm}/execs", json=body, headers=key).headers["location"]
        for _ in range(3)
    ]
    assert len(set(paths)) == 1
    with watch(shared, paths[0]) as events:
        assert read_all(events)[0] == b"once\n"


def test_R29_input_that_waits_is_bounded(client: Client, vm: str, shared: Daemon) -> None:
    path = begin(client, vm, FOREVER, stdin_open=True)
    vmm = shared.vmm_of(client.expect(200, "GET", f"/vms/{vm}").json()["instance"])
    offset = 0
    os.kill(vmm, signal.SIGSTOP)  # nobody reads it, not even a guest that throws it away
    try:
        for _ in range(64):
            response = client.request(
                "POST", f"{path}/stdin", json={"offset": offset, "text": "x" * 100000}
            )
            if response.status_code != 200:
                break
            offset = response.json()["offset"]
    finally:
        os.kill(vmm, signal.SIGCONT)
    assert (response.status_code, response.json()["code"]) == (503, "busy")
    assert get(client, path)["stdin_bytes"] == offset
    client.expect(204, "DELETE", path)
    body = get(client, path)
    assert body["state"] == "exited" or body["reason"] == "killed", body


def test_R10_an_id_is_of_one_vm_alone(client: Client, vm: str) -> None:
    client.create(id="other", memory_mib=client.get(vm)["memory_mib"])
    path = begin(client, vm, ["/bin/echo", "secret"])
    client.problem(404, "exec_not_found", "GET", path.replace(vm, "other"))
    client.problem(404, "exec_not_found", "DELETE", path.replace(vm, "other"))
    client.delete("other")


def test_R31_a_vm_that_ends_ends_its_commands_and_they_say_so(
    client: Client, vm: str, shared: Daemon, backend: Backend
) -> None:
    client.create(id="ends", memory_mib=backend.memory_mib)
    path = begin(client, "ends", FOREVER)
    with watch(shared, path) as events:
        client.delete("ends")
        _, record = read_all(events)
    assert (record["state"], record["reason"]) == ("lost", "vm_ended")
    assert get(client, path)["reason"] == "vm_ended"
    client.problem(404, "vm_gone", "POST", "/vms/ends/execs", json={"argv": ["true"]})


def test_R21_no_snapshot_while_one_runs_and_one_as_soon_as_it_has_ended(
    client: Client, vm: str
) -> None:
    path = begin(client, vm, FOREVER)
    client.problem(503, "busy", "POST", f"/vms/{vm}/snapshots", json={})
    client.expect(204, "DELETE", path)
    made = client.expect(201, "POST", f"/vms/{vm}/snapshots", json={}).json()
    client.expect(204, "DELETE", f"/snapshots/{made['id']}")


def test_R31_a_pause_stops_it_and_it_goes_on(client: Client, vm: str, shared: Daemon) -> None:
    path = begin(client, vm, ["/bin/cat"], stdin_open=True)
    client.pause(vm)
    feed(client, path, 0, b"while paused")
    assert get(client, path)["state"] == "running"
    client.problem(409, "vm_paused", "POST", f"/vms/{vm}/execs", json={"argv": ["true"]})
    client.resume(vm)
    feed(client, path, 12, b"", eof=True)
    with watch(shared, path) as events:
        assert read_all(events)[0] == b"while paused"


@pytest.mark.testguest  # an emulated VM has seven channels
def test_R31_there_are_only_so_many(client: Client, vm: str) -> None:
    """Of those that have ended the oldest go; those that run do not."""
    first = begin(client, vm, ["/bin/true"])
    wait_until(lambda: get(client, first)["state"] == "exited", 30, "it did not end")
    running = [begin(client, vm, FOREVER) for _ in range(64)]
    client.problem(404, "exec_not_found", "GET", first)
    client.problem(503, "busy", "POST", f"/vms/{vm}/execs", json={"argv": ["true"]})
    assert len(client.expect(200, "GET", f"/vms/{vm}/execs").json()["execs"]) == 64
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: client.expect(204, "DELETE", path), running))


@pytest.mark.linux
def test_R31_a_grandchild_that_holds_the_output_holds_no_watched_command(
    client: Client, vm: str, shared: Daemon
) -> None:
    path = begin(client, vm, ["/bin/sh", "-c", "echo begun; sleep 97532 & exit 3"])
    with watch(shared, path) as events:
        out, record = read_all(events)
    assert (out, record["exit_code"], record["timed_out"]) == (b"begun\n", 3, False)


@pytest.mark.linux
def test_R31_delete_ends_the_whole_tree(client: Client, vm: str, shared: Daemon) -> None:
    script = "setsid sleep 97531 & (setsid sh -c 'sleep 97531 & wait') & echo begun; sleep 97531"
    path = begin(client, vm, ["/bin/sh", "-c", script])
    with watch(shared, path) as events:
        assert next(iter(events)).data == b"begun\n"
    client.expect(204, "DELETE", path)
    count = "grep -lsa 9753[1] /proc/[0-9]*/cmdline | wc -l"
    assert client.exec(vm, ["/bin/sh", "-c", count], timeout_ms=60000).out == "0\n"


@pytest.mark.linux
def test_R29_a_terminal_in_a_vm(client: Client, vm: str, shared: Daemon) -> None:
    script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    path = begin(
        client, vm, ["/bin/sh", "-c", script], pty={"rows": 33, "cols": 77}, stdin_open=True
    )
    out = b""
    with watch(shared, path) as events:
        for event in events:
            out += event.data if event.name == "stdout" else b""
            if out.endswith(b"ready\r\n"):
                client.expect(204, "POST", f"{path}/resize", json={"rows": 40, "cols": 100})
            if out.endswith(b"40 100\r\n"):
                feed(client, path, 0, b"\x03")
    assert out.startswith(b"33 77\r\nready\r\n40 100\r\n"), out
    body = get(client, path)
    assert (body["state"], body["signal"], body["pty"]) == ("exited", 2, True)
