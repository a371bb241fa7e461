"""R02, R11: GET /vms/{id} from memory is never older than what anybody was told before,
and never another's."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from test_tcp import ADMIN, ALICE, BOB, bearer, free_port, write_tokens

READERS = 4
WRITES = 150
STEP_S = 10


def end_of(body: dict[str, str]) -> float:
    return datetime.fromisoformat(body["expires_at"]).timestamp()


class Told:
    """The latest end of a VM that anybody was told of."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.latest = 0.0

    def before(self) -> float:
        with self.lock:
            return self.latest

    def note(self, end: float) -> None:
        with self.lock:
            self.latest = max(self.latest, end)


@pytest.mark.testguest
def test_R02_no_connection_is_told_of_an_older_state(
    client: Client, daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    client.create(id="vm", memory_mib=backend.memory_mib, ttl_s=60)
    told, over = Told(), threading.Event()

    def read() -> int:
        reader = connect(daemon)
        count = 0
        while not over.is_set():
            before = told.before()
            end = end_of(reader.get("vm"))
            assert end >= before, f"{before - end} s older than what was told, read {count}"
            told.note(end)
            count += 1
        return count

    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read) for _ in range(READERS)]
        try:
            for i in range(WRITES):
                path = "/vms/vm/keepalive"
                kept = client.expect(200, "POST", path, json={"ttl_s": 60 + (i + 1) * STEP_S})
                told.note(end_of(kept.json()))
        finally:
            over.set()
        assert all(reader.result() > 0 for reader in readers)


@pytest.mark.testguest
def test_R02_every_change_is_seen_at_once_on_other_connections(
    client: Client, daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    others = [connect(daemon) for _ in range(READERS)]

    def seen() -> set[str]:
        for other in others:
            other.get("vm")  # from here on it is known
        return {other.get("vm")["state"] for other in others}

    for _ in range(3):
        client.create(id="vm", memory_mib=backend.memory_mib)
        assert seen() == {"running"}
        client.pause("vm")
        assert seen() == {"paused"}
        client.resume("vm")
        assert seen() == {"running"}
        client.delete("vm")
        for other in others:
            other.problem(404, "vm_gone", "GET", "/vms/vm")


@pytest.mark.testguest
def test_R41_what_is_known_of_one_owners_vm_is_told_to_no_other(
    start: Callable[..., Daemon], tmp_path: Path, connect: Callable[..., Client], backend: Backend
) -> None:
    port = free_port()
    daemon = start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    address = f"http://127.0.0.1:{port}"
    alice, bob, admin = (connect(address, bearer(token)) for token in (ALICE, BOB, ADMIN))
    first = alice.create(id="same", memory_mib=backend.memory_mib)
    for _ in range(3):
        assert alice.get("same")["instance"] == first["instance"]
        assert admin.get("same")["instance"] == first["instance"]
        assert connect(daemon).get("same")["owner"] == "alice"  # root
        bob.problem(404, "vm_not_found", "GET", "/vms/same")
        connect(address).problem(401, "unauthorized", "GET", "/vms/same")
    second = bob.create(id="same", memory_mib=backend.memory_mib)
    for _ in range(3):
        assert bob.get("same")["instance"] == second["instance"]
        assert alice.get("same")["instance"] == first["instance"]
    alice.problem(400, "invalid_query", "GET", "/vms/same?x=1")
