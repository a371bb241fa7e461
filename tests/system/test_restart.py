"""R02, R04: whichever half dies, and whenever, what ran is adopted and the rest is gone."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client, Refused
from harness.daemon import Daemon
from harness.kills import kill_both, kill_front, kill_root
from harness.waiting import wait_until

Killer = Callable[[Daemon], None]


KILLERS = pytest.mark.parametrize(
    "kill",
    [kill_root, kill_front, pytest.param(kill_both, marks=pytest.mark.core)],
    ids=["root-half", "front", "both"],
)


def die(daemon: Daemon, kill: Killer) -> None:
    front = daemon.open_front()
    kill(daemon)
    daemon.wait_ended(front)


@KILLERS
def test_R02_running_vms_are_adopted_after_a_kill(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, kill: Killer
) -> None:
    daemon = start()
    client = connect(daemon)
    created = {
        vm_id: client.create(id=vm_id, memory_mib=backend.memory_mib, labels={"n": vm_id})
        for vm_id in ("a", "b")
    }
    before = daemon.vmms()
    die(daemon, kill)
    assert daemon.vmms() == before, "VMs outlive the daemon"
    daemon.start()
    assert daemon.vmms() == before, "the same processes"
    client = connect(daemon)
    for vm_id, vm in created.items():
        assert client.get(vm_id) == vm, "nothing about a VM was only in memory"
        assert client.exec(vm_id, ["/bin/echo", "still", vm_id]).out == f"still {vm_id}\n"
    daemon.assert_no_leftovers()
    client.delete("a")
    assert client.exec("b", ["/bin/echo", "b"]).out == "b\n"
    client.delete("b")
    assert daemon.vmms() == {}
    assert daemon.vm_rules() == []
    daemon.assert_no_leftovers()


@KILLERS
def test_R04_a_kill_during_spawns_leaves_whole_vms_or_nothing(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, kill: Killer
) -> None:
    """Killed as soon as the first VMM of a burst exists; the next starts are killed a little later
    each, so that other steps are hit."""
    daemon = start()
    clients = [connect(daemon) for _ in range(4)]

    def burst(client: Client, vm_id: str) -> None:
        try:
            client.create(id=vm_id, memory_mib=backend.memory_mib)
        except (httpx.TransportError, Refused):
            return  # the service dies meanwhile

    for turn in range(3):
        threads = [
            threading.Thread(target=burst, args=(client, f"t{turn}-{number}"))
            for number, client in enumerate(clients)
        ]
        known = set(daemon.vmms())
        for thread in threads:
            thread.start()
        while len(set(daemon.vmms()) - known) <= turn and any(t.is_alive() for t in threads):
            pass
        die(daemon, kill)
        for thread in threads:
            thread.join(timeout=60)
        daemon.start()
        clients = [connect(daemon) for _ in range(4)]
        running = clients[0].list(limit=500)
        assert {vm["state"] for vm in running} <= {"running"}
        assert len(daemon.vmms()) == len(running)
        for vm in running:
            assert clients[0].exec(vm["id"], ["/bin/echo", vm["id"]]).out == f"{vm['id']}\n"
        daemon.assert_no_leftovers()
    for vm in clients[0].list(limit=500):
        clients[0].delete(vm["id"])
    assert daemon.vmms() == {}
    assert daemon.vm_rules() == []
    daemon.assert_no_leftovers()


def test_R02_a_vm_that_died_while_the_daemon_was_away_is_lost_with_a_reason(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="dies", memory_mib=backend.memory_mib)
    client.create(id="lives", memory_mib=backend.memory_mib)
    instance = client.get("dies")["instance"]
    victims = [pid for pid in daemon.vmms() if belongs(pid, instance)]
    assert victims
    daemon.stop()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    daemon.start()
    client = connect(daemon)
    assert [vm["id"] for vm in client.list()] == ["lives"]
    client.problem(404, "vm_gone", "GET", "/vms/dies")
    assert client.exec("lives", ["/bin/echo", "yes"]).out == "yes\n"
    daemon.assert_no_leftovers()


def belongs(pid: int, instance: str) -> bool:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return instance in file.read()


def sockets(pid: int) -> int:
    count = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    return count


def test_R02_sigterm_drains_and_vms_go_on(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="on", memory_mib=backend.memory_mib)
    before = daemon.vmms()
    other = connect(daemon)
    other.list()
    idle = sockets(daemon.front_pid)
    with ThreadPoolExecutor(1) as pool:
        command = pool.submit(connect(daemon).exec, "on", ["/bin/sleep", "2"])
        # Two: the caller's, and the one to the guest, which is made when the command was let in.
        wait_until(lambda: command.done() or sockets(daemon.front_pid) >= idle + 2)
        assert not command.done(), command.result()
        assert daemon.stop() == 0
        assert command.result(timeout=30).code == 0, "what ran when the stop came is finished"
    assert daemon.vmms() == before
    daemon.start()
    assert connect(daemon).exec("on", ["/bin/echo", "on"]).out == "on\n"


def test_R02_two_daemons_do_not_share_a_place(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    first = daemon.process
    client = connect(daemon)
    client.create(id="mine", memory_mib=backend.memory_mib)
    second = daemon.spawn()
    assert second.wait(timeout=20) != 0
    daemon.process = first
    assert client.exec("mine", ["/bin/echo", "ok"]).out == "ok\n"
    daemon.assert_no_leftovers()
