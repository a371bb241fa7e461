"""What a tenant may have and how often he may ask: refused in time, without an effect, and no
concern of the other tenant's."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.waiting import wait_until
from test_reload import REFUSED, RELOADED, Configured
from test_tcp import ALICE, BOB, TOKENS, bearer, token_line, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

HASTY = "hasty-1112223334-kkklllmmmn"


@pytest.fixture
def daemon(backend: Backend, keeper: object, start: object, tmp_path: Path) -> Iterator[Configured]:
    daemon = Configured(backend, tmp_path)
    line = token_line("hasty", HASTY, "operate", "alice").rstrip()
    write_tokens(tmp_path, TOKENS + line + " rate=2\n")
    daemon.live |= {"max-tenant-vms": "2"}
    daemon.write()
    daemon.start()
    yield daemon
    daemon.close()


def test_R09_a_tenants_quota_holds_for_many_at_once_and_for_each_by_itself(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    alice, bob = (connect(daemon.address, bearer(token)) for token in (ALICE, BOB))

    def ask(number: int) -> int:
        spec = {"id": f"vm-{number}", "memory_mib": backend.memory_mib}
        return connect(daemon.address, bearer(ALICE)).request("POST", "/vms", json=spec).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(ask, range(6)))
    assert statuses == [201, 201, 429, 429, 429, 429]
    spec = {"memory_mib": backend.memory_mib}
    refused = alice.request("POST", "/vms", json=spec)
    assert refused.json()["code"] == "quota_exceeded"
    assert int(refused.headers["retry-after"]) > 0
    assert "you have 2 VMs" in refused.json()["detail"]
    assert len(alice.list()) == 2
    bob.create(id="his", **spec)
    for vm in alice.list():
        alice.delete(vm["id"])
    alice.create(id="again", **spec)
    daemon.live |= {"max-tenant-vms": "0", "max-tenant-memory-mib": str(2 * backend.memory_mib - 1)}
    daemon.write()
    said = daemon.reload()
    assert RELOADED in said
    assert "max-tenant-memory-mib" in said
    alice.problem(429, "quota_exceeded", "POST", "/vms", json=spec)
    daemon.live |= {"max-tenant-memory-mib": "0", "max-tenant-vcpus": "2"}
    daemon.write()
    daemon.reload()
    alice.create(id="second", **spec)
    alice.problem(429, "quota_exceeded", "POST", "/vms/second/fork", json={"count": 1})
    assert {vm["id"] for vm in alice.list()} == {"again", "second"}


def test_R09_a_tenant_has_its_own_quota_and_sees_it(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    alice, bob = (connect(daemon.address, bearer(token)) for token in (ALICE, BOB))
    spec = {"memory_mib": backend.memory_mib}

    def told(client: Client) -> dict[str, Any]:
        tenant: dict[str, Any] = client.expect(200, "GET", "/capabilities").json()["tenant"]
        return tenant

    daemon.live["quota"] = f"alice,vms=3,memory-mib={3 * backend.memory_mib - 1},execs=7"
    daemon.write()
    assert "quota" in daemon.reload()
    for _ in range(2):
        alice.create(**spec)
        bob.create(**spec)
    assert (
        "MiB of memory" in alice.problem(429, "quota_exceeded", "POST", "/vms", json=spec)["detail"]
    )
    bob.problem(429, "quota_exceeded", "POST", "/vms", json=spec)
    has = {"vms": 2, "vcpus": 2, "memory_mib": 2 * backend.memory_mib, "execs": 0}
    assert told(bob) == {
        "name": "bob",
        "max_vms": 2,
        "max_vcpus": None,
        "max_memory_mib": None,
        "max_execs": None,
        **has,
    }
    hers = {
        "max_vms": 3,
        "max_vcpus": None,
        "max_memory_mib": 3 * backend.memory_mib - 1,
        "max_execs": 7,
    }
    assert told(alice) == {"name": "alice", **hers, **has}
    daemon.stop()
    daemon.start()
    assert told(connect(daemon.address, bearer(ALICE))) == {"name": "alice", **hers, **has}
    for wrong, why in {
        "alice": "what he may have is missing",
        "alice,vms=1,vms=2": "vms stands twice",
        "alice,gold=1": "`gold` is none of vms, vcpus, memory-mib, execs",
        "alice,vms=-1": "vms",
        "uid:x,vms=1": "`uid:x` is no tenant",
    }.items():
        daemon.live["quota"] = wrong
        daemon.write()
        said = daemon.reload()
        assert REFUSED in said
        assert why in said
    assert told(connect(daemon.address, bearer(ALICE)))["max_vms"] == 3


def test_R04_a_create_that_failed_takes_nothing_of_the_quota(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    alice = connect(daemon.address, bearer(ALICE))
    alice.create(id="origin", memory_mib=backend.memory_mib)
    assert alice.exec("origin", ["betray", "refuse"]).code == 0
    made = alice.expect(201, "POST", "/vms/origin/snapshots", json={}).json()
    for _ in range(3):
        alice.problem(502, "guest_protocol", "POST", "/vms", json={"snapshot": made["id"]})
    alice.create(id="second", memory_mib=backend.memory_mib)
    alice.problem(429, "quota_exceeded", "POST", "/vms", json={"memory_mib": backend.memory_mib})


def test_R31_a_token_that_asks_too_often_is_told_when_to_come_back(
    daemon: Configured, connect: Callable[..., Client]
) -> None:
    hasty, alice = (connect(daemon.address, bearer(token)) for token in (HASTY, ALICE))
    begun, good, refused = time.monotonic(), 0, 0
    while refused < 20:
        answer = hasty.request("GET", "/vms")
        if answer.status_code == 429:
            assert answer.json()["code"] == "rate_limited"
            assert answer.headers["retry-after"] == "1"
            refused += 1
        else:
            assert answer.status_code == 200
            good += 1
        alice.list()  # another token of the same tenant
    assert 4 <= good <= 4 + 2 * (time.monotonic() - begun) + 1
    wait_until(lambda: hasty.request("GET", "/vms").status_code == 200, 5)
    assert hasty.expect(200, "GET", "/healthz").status_code == 200


def ask_and_stay(address: str, token: str, path: str, body: dict[str, Any]) -> socket.socket:
    """A request whose answer nobody reads yet: it costs no thread."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    text = json.dumps(body)
    asking = socket.create_connection((host, int(port)))
    asking.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
    )
    return asking


def test_R03_one_tenants_commands_leave_room_for_anothers(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    """Alice asks for commands that do not end until the service takes no more of hers."""
    alice, bob = (connect(daemon.address, bearer(token)) for token in (ALICE, BOB))
    for client, vm in ((alice, "one"), (alice, "two"), (bob, "his")):
        client.create(id=vm, memory_mib=backend.memory_mib)
    body = {"argv": ["/bin/sleep", "86400"], "timeout_ms": 600_000}
    routes = ("/vms/one/exec", "/vms/two/execs")
    asking: list[socket.socket] = []
    refused: list[socket.socket] = []
    while not refused and len(asking) < 1000:
        asking.append(ask_and_stay(daemon.address, ALICE, routes[len(asking) % 2], body))
        refused, _, _ = select.select(asking, [], [], 0)
    assert refused, "there is an end of what one tenant may have"
    assert refused[0].recv(12) == b"HTTP/1.1 503"
    assert len(asking) > 128
    began = time.monotonic()
    assert bob.exec("his", ["/bin/echo", "on"]).out == "on\n"
    made = bob.expect(201, "POST", "/vms/his/execs", json={"argv": ["/bin/true"]}).json()
    assert made["state"] == "exited"
    assert time.monotonic() - began < 5
    for vm in ("one", "two"):
        alice.delete(vm)
    for one in asking:
        one.close()


def test_R09_a_tenants_commands_have_a_quota_too(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    alice, bob = (connect(daemon.address, bearer(token)) for token in (ALICE, BOB))
    for client, vm in ((alice, "hers"), (bob, "his")):
        client.create(id=vm, memory_mib=backend.memory_mib)
    daemon.live |= {"max-tenant-execs": "2"}
    daemon.write()
    said = daemon.reload()
    assert RELOADED in said
    assert "max-tenant-execs" in said
    later = {"Prefer": "respond-async"}
    body = {"argv": ["/bin/sleep", "86400"], "timeout_ms": 600_000}
    paths = [
        alice.expect(202, "POST", "/vms/hers/execs", json=body, headers=later).headers["location"]
        for _ in range(2)
    ]
    for route in ("exec", "execs"):
        refused = alice.request("POST", f"/vms/hers/{route}", json={"argv": ["/bin/true"]})
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        assert "2 commands" in refused.json()["detail"]
    told = alice.expect(200, "GET", "/capabilities").json()["tenant"]
    assert (told["max_execs"], told["execs"]) == (2, 2)
    assert bob.exec("his", ["/bin/echo", "on"]).out == "on\n"
    alice.expect(204, "DELETE", paths[0])
    for _ in range(3):
        assert alice.exec("hers", ["/bin/echo", "again"]).out == "again\n"
    daemon.live["quota"] = "alice,execs=1"
    daemon.write()
    assert RELOADED in daemon.reload()
    refused_too = alice.problem(
        429, "quota_exceeded", "POST", "/vms/hers/exec", json={"argv": ["/bin/true"]}
    )
    assert "at most 1 at once" in refused_too["detail"]
