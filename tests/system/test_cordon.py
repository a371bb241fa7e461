"""Cordon and drain: an operator empties a host; everybody else goes on until he says so."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until
from test_tcp import ADMIN, ALICE, bearer, free_port, write_tokens


@pytest.fixture
def admin(client: Client) -> Iterator[Client]:
    """Root, on the shared daemon; whatever happens it is not cordoned afterwards."""
    yield client
    client.expect(204, "DELETE", "/admin/cordon")


def test_R02_a_cordon_refuses_new_vms_and_nothing_else(
    admin: Client, daemon: Daemon, backend: Backend
) -> None:
    client = admin
    client.create(id="before", memory_mib=backend.memory_mib)
    before = (daemon.rows(), daemon.vmms(), daemon.rules())
    said = client.expect(200, "POST", "/admin/cordon").json()
    assert (said["cordoned"], said["by"], said["drain"], said["vms"]) == (True, "root", None, 1)
    problem = client.problem(503, "cordoned", "POST", "/vms", json={"id": "no"})
    assert "root" in problem["detail"]
    prefer = {"Prefer": "respond-async"}
    client.problem(503, "cordoned", "POST", "/vms", json={"id": "no"}, headers=prefer)
    assert (daemon.rows(), daemon.vmms(), daemon.rules()) == before, "refused without an effect"
    client.problem(503, "cordoned", "GET", "/readyz")
    assert client.expect(200, "GET", "/healthz").json() == {"status": "ok"}
    assert client.expect(200, "GET", "/capabilities").json()["cordoned"] is True
    assert total(scrape(client)[1], "motte_cordoned") == 1
    assert client.exec("before", ["/bin/echo", "on"]).out == "on\n"
    assert client.expect(200, "POST", "/admin/cordon").json() == said, "twice is once"
    client.delete("before")
    client.expect(204, "DELETE", "/admin/cordon")
    assert client.expect(200, "GET", "/capabilities").json()["cordoned"] is False
    assert total(scrape(client)[1], "motte_cordoned") == 0
    client.expect(200, "GET", "/readyz")
    client.create(id="after", memory_mib=backend.memory_mib)


def test_R02_a_drain_ends_what_is_left_at_its_deadline(
    admin: Client, daemon: Daemon, backend: Backend
) -> None:
    client = admin
    for vm_id in ("by-itself", "by-the-drain"):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    seconds = 60 if backend.emulated else 4
    began = time.monotonic()
    said = client.expect(202, "POST", "/admin/drain", json={"deadline_s": seconds}).json()
    assert (said["cordoned"], said["vms"]) == (True, 2)
    client.problem(503, "cordoned", "POST", "/vms", json={})
    client.delete("by-itself")
    assert client.exec("by-the-drain", ["/bin/echo", "on"]).out == "on\n"
    state = client.expect(200, "GET", "/admin/cordon").json()
    assert (state["vms"], state["drain"]) == (1, said["drain"])
    gone = client.wait_gone("by-the-drain", 2 * seconds + 60)
    assert time.monotonic() - began >= seconds
    assert "drained" in gone["detail"]
    assert client.expect(200, "GET", "/admin/cordon").json()["vms"] == 0
    audit = client.expect(200, "GET", "/vms/by-the-drain/audit").json()["entries"]
    assert audit[-1]["detail"] == {"state": "exited", "reason": "drained"}
    assert total(scrape(client)[1], "motte_vm_ends_total", reason="drained") == 1


@pytest.mark.testguest  # not about guests, and a boot must not take longer than their lives
def test_R02_a_drain_that_is_lifted_ends_nobody(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The first end says that the drain is known to who would end the others, the second that its
    deadline has passed."""
    admin = connect(start())
    admin.create(id="stays", memory_mib=backend.memory_mib)
    for vm_id, ttl_s in (("first", 3), ("second", 8)):
        admin.create(id=vm_id, memory_mib=backend.memory_mib, ttl_s=ttl_s)
    admin.expect(202, "POST", "/admin/drain", json={"deadline_s": 6})
    assert "exited (ttl)" in admin.wait_gone("first")["detail"]
    admin.expect(204, "DELETE", "/admin/cordon")
    assert "exited (ttl)" in admin.wait_gone("second")["detail"]
    assert admin.exec("stays", ["/bin/echo", "on"]).out == "on\n"


def test_R02_a_drain_at_once_also_ends_what_is_being_created(
    admin: Client, daemon: Daemon, backend: Backend
) -> None:
    prefer = {"Prefer": "respond-async"}
    spec = {"id": "half-made", "memory_mib": backend.memory_mib}
    admin.expect(202, "POST", "/vms", json=spec, headers=prefer)
    admin.expect(202, "POST", "/admin/drain", json={"deadline_s": 0})
    admin.wait_gone("half-made")
    wait_until(lambda: daemon.vmms() == {}, what="a VM outlives the drain")


BODIES: list[tuple[str, dict[str, object]]] = [
    ("missing_field", {}),
    ("out_of_range", {"deadline_s": -1}),
    ("out_of_range", {"deadline_s": 2592001}),
    ("wrong_type", {"deadline_s": "10"}),
    ("wrong_type", {"deadline_s": 1.5}),
    ("wrong_type", {"deadline_s": None}),
    ("unknown_field", {"deadline_s": 1, "force": True}),
]


def test_R07_bad_drains_are_refused_precisely_and_without_effect(admin: Client) -> None:
    for code, body in BODIES:
        problem = admin.problem(400, code, "POST", "/admin/drain", json=body)
        assert "deadline_s" in problem["detail"] or code == "unknown_field"
    admin.problem(400, "invalid_json", "POST", "/admin/drain", content=b"{",
                  headers={"Content-Type": "application/json"})  # fmt: skip
    admin.problem(400, "bad_request", "POST", "/admin/cordon", json={"reason": "x"})
    admin.problem(400, "invalid_query", "POST", "/admin/cordon?until=now")
    assert admin.expect(200, "GET", "/admin/cordon").json() == {
        "cordoned": False, "by": None, "since": None, "drain": None, "vms": 0,
    }  # fmt: skip


def test_R02_a_cordon_and_a_drain_outlive_restarts(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="drained", memory_mib=backend.memory_mib)
    said = client.expect(202, "POST", "/admin/drain", json={"deadline_s": 600}).json()
    daemon.stop()
    daemon.start()
    client = connect(daemon)
    assert client.expect(200, "GET", "/admin/cordon").json() == said
    assert "root cordoned this host" in daemon.log, "the log reminds who starts it"
    client.problem(503, "cordoned", "POST", "/vms", json={})
    client.expect(202, "POST", "/admin/drain", json={"deadline_s": 0})
    client.wait_gone("drained")
    client.expect(204, "DELETE", "/admin/cordon")
    client.create(id="again", memory_mib=backend.memory_mib)


def test_R11_only_an_administrator_cordons(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path
) -> None:
    port = free_port()
    daemon = start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    address = f"http://127.0.0.1:{port}"
    alice = connect(address, bearer(ALICE))
    for method, path, json in (
        ("GET", "/admin/cordon", None),
        ("POST", "/admin/cordon", None),
        ("DELETE", "/admin/cordon", None),
        ("POST", "/admin/drain", {"deadline_s": 0}),
    ):
        alice.problem(403, "forbidden", method, path, json=json)
        connect(address).problem(401, "unauthorized", method, path, json=json)
    admin = connect(address, bearer(ADMIN))
    assert admin.expect(200, "GET", "/admin/cordon").json()["cordoned"] is False
    assert admin.expect(200, "POST", "/admin/cordon").json()["by"] == "admin"
    said = re.compile(r"POST /admin/cordon 200 .* caller=admin ")
    wait_until(lambda: said.search(daemon.log) is not None, 10, "the log does not say who")
