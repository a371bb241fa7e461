"""R02: how long a VM lives: its ttl_s, which only a keepalive prolongs; how long it may be idle."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import datetime

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until

YEAR_S = 366 * 86400


def end_of(vm: dict[str, str]) -> datetime:
    return datetime.fromisoformat(vm["expires_at"])


def keep(client: Client, vm_id: str, **body: int) -> dict[str, str]:
    vm: dict[str, str] = client.expect(200, "POST", f"/vms/{vm_id}/keepalive", json=body).json()
    return vm


def test_R02_only_a_keepalive_moves_the_end_of_a_vm(client: Client, backend: Backend) -> None:
    vm = client.create(id="kept", memory_mib=backend.memory_mib, ttl_s=600)
    client.exec("kept", ["/bin/echo", "x"])
    client.list()
    assert end_of(client.get("kept")) == end_of(vm)
    longer = keep(client, "kept", ttl_s=6000)
    assert 5400 <= (end_of(longer) - end_of(vm)).total_seconds() < 5400 + 600
    assert client.get("kept") == longer
    assert keep(client, "kept", ttl_s=1) == longer, "it takes nothing away"
    assert keep(client, "kept") == longer, "its own ttl_s"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"ttl_s": 0}, "out_of_range"),
        ({"ttl_s": 2592001}, "out_of_range"),
        ({"ttl_s": "60"}, "wrong_type"),
        ({"ttl": 60}, "unknown_field"),
    ],
)
def test_R07_a_keepalive_is_checked(
    client: Client, backend: Backend, body: dict[str, object], code: str
) -> None:
    vm = client.create(id="kept", memory_mib=backend.memory_mib)
    client.problem(400, code, "POST", "/vms/kept/keepalive", json=body)
    assert client.get("kept") == vm


def test_R02_what_is_not_there_cannot_be_kept_alive(client: Client, backend: Backend) -> None:
    client.problem(404, "vm_not_found", "POST", "/vms/never/keepalive", json={})
    client.create(id="gone", memory_mib=backend.memory_mib)
    client.delete("gone")
    client.problem(404, "vm_gone", "POST", "/vms/gone/keepalive", json={})


def test_R02_a_keepalive_outlives_a_kill(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="kept", memory_mib=backend.memory_mib, ttl_s=5)
    client.create(id="brief", memory_mib=backend.memory_mib, ttl_s=5)
    kept = keep(client, "kept", ttl_s=6000)
    front = daemon.open_front()
    os.kill(daemon.front_pid, signal.SIGKILL)
    daemon.wait_ended(front)
    daemon.start()
    client = connect(daemon)
    assert "exited (ttl)" in client.wait_gone("brief")["detail"]
    assert client.get("kept") == kept
    client.delete("kept")
    daemon.assert_no_leftovers()


def test_R02_a_vm_without_commands_is_idle(
    daemon: Daemon, client: Client, connect: Callable[..., Client], backend: Backend
) -> None:
    """Three alike: one is used, one is kept, one is left alone but for reads, which count not."""

    def create(vm_id: str) -> None:
        vm = client.create(id=vm_id, memory_mib=backend.memory_mib, idle={"after_s": 4})
        assert vm["idle"] == {"after_s": 4, "action": "delete"}

    _, before = scrape(client)
    kept, over = threading.Event(), threading.Event()
    other = connect(daemon)

    def use() -> None:
        while not over.is_set():
            other.exec("used", ["/bin/sleep", "1"])
            if kept.is_set():
                keep(other, "kept")

    create("used")
    user = threading.Thread(target=use)
    user.start()  # at once: the next may be long in coming
    try:
        create("kept")
        kept.set()
        create("idle")
        gone = client.wait_gone("idle")
    finally:
        over.set()
        user.join()
    assert "exited (idle)" in gone["detail"]
    assert {vm["id"] for vm in client.list()} == {"used", "kept"}
    for vm_id in ("used", "kept"):
        assert "exited (idle)" in client.wait_gone(vm_id)["detail"]
    _, after = scrape(client)
    moved = total(after, "motte_vm_ends_total", reason="idle")
    assert moved == total(before, "motte_vm_ends_total", reason="idle") + 3


@pytest.mark.parametrize(
    ("idle", "code"),
    [
        ({"after_s": 0}, "out_of_range"),
        ({"after_s": YEAR_S}, "out_of_range"),
        ({"action": "delete"}, "missing_field"),
        ({"after_s": 60, "action": "pause"}, "invalid_value"),
        ({"after_s": 60, "more": 1}, "unknown_field"),
        (60, "wrong_type"),
    ],
)
def test_R07_idleness_is_checked(client: Client, idle: object, code: str) -> None:
    body = client.problem(400, code, "POST", "/vms", json={"idle": idle})
    assert "idle" in body["detail"]


def test_R07_what_becomes_of_a_vm_that_hangs_is_checked(client: Client) -> None:
    body = client.problem(400, "invalid_value", "POST", "/vms", json={"on_unresponsive": "kill"})
    assert "on_unresponsive" in body["detail"]


def test_R02_a_creation_that_was_cut_off_is_not_creating_for_ever(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The row is there before the answer; its spawn dies with the front."""
    daemon = start()
    client = connect(daemon)
    body = {"id": "cut", "memory_mib": backend.memory_mib}
    client.expect(202, "POST", "/vms", json=body, headers={"Prefer": "respond-async"})
    os.kill(daemon.front_pid, signal.SIGKILL)
    daemon.wait_ended()
    daemon.start()
    client = connect(daemon)
    wait_until(lambda: all(vm["state"] == "running" for vm in client.list()))
    client.delete("cut")
    daemon.assert_no_leftovers()
