"""R02: a VM that is paused does not run, is told as paused, and goes on when it is resumed,
whatever happens meanwhile to the service, to its commands and to its time."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from harness import host, vmm
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.kills import kill_both, kill_front, kill_root
from harness.metrics import scrape, total
from harness.waiting import wait_until

GRACE_S = 5  # vsock/exec.c
PAUSED_S = 2.0
TICKS_S = 0.025  # two of them


def kinds(client: Client, vm_id: str) -> list[str]:
    entries = client.expect(200, "GET", f"/vms/{vm_id}/audit").json()["entries"]
    return [entry["kind"] for entry in entries if entry["kind"] in ("paused", "resumed")]


def wait_a_while(seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + seconds, what="time stands")


def later(call: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def wait_busy(daemon: Daemon, instance: str) -> None:
    """A command runs in it: the inventory says so at the first one's begin."""
    uri = f"file:{daemon.state_dir}/front/motte.db?mode=ro"

    def busy() -> bool:
        connection = sqlite3.connect(uri, uri=True, timeout=5)
        query = "SELECT idle_since_boot_ms FROM vms WHERE instance = ?"
        (since,) = connection.execute(query, (instance,)).fetchone()
        connection.close()
        return bool(since == 0)

    wait_until(busy, what="no command began")


@pytest.mark.core
def test_R02_a_paused_vm_is_told_and_resumed(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="still", memory_mib=backend.memory_mib)
    pid = daemon.vmm_of(vm["instance"])
    assert client.resume("still") == vm, "it runs"
    for _ in range(2):
        assert client.pause("still") == {**vm, "state": "paused"}
        assert vmm.is_paused(backend, pid)
    assert client.get("still")["state"] == "paused"
    assert [found["id"] for found in client.list(state="paused")] == ["still"]
    assert client.list(state="running") == []
    _, samples = scrape(client)
    assert total(samples, "motte_vms", state="paused") == 1
    assert total(samples, "motte_vms", state="running") == 0
    body = {"argv": ["/bin/true"]}
    refused = client.problem(409, "vm_paused", "POST", "/vms/still/exec", json=body)
    assert "/resume" in refused["remediation"]
    assert client.expect(200, "GET", "/vms/still/isolation").json()["ok"]
    kept = client.expect(200, "POST", "/vms/still/keepalive", json={"ttl_s": 7200}).json()
    assert (kept["state"], kept["expires_at"] > vm["expires_at"]) == ("paused", True)
    for _ in range(2):
        assert client.resume("still") == {**kept, "state": "running"}
        assert not vmm.is_paused(backend, pid)
    assert client.exec("still", ["/bin/echo", "on"]).out == "on\n"
    assert kinds(client, "still") == ["paused", "resumed"]
    client.pause("still")
    began = time.monotonic()
    client.delete("still")
    assert time.monotonic() - began < 10
    daemon.assert_no_leftovers()


def test_R01_only_a_vm_that_is_up_is_paused(client: Client, backend: Backend) -> None:
    for verb in ("pause", "resume"):
        client.problem(404, "vm_not_found", "POST", f"/vms/never/{verb}")
        client.problem(400, "invalid_query", "POST", f"/vms/never/{verb}?x=1")
        client.problem(400, "bad_request", "POST", f"/vms/never/{verb}", json={})
    spec = {"id": "early", "memory_mib": backend.memory_mib}
    client.expect(202, "POST", "/vms", json=spec, headers={"Prefer": "respond-async"})
    answer = client.request("POST", "/vms/early/pause")
    if answer.status_code != 200:  # a test guest may be up already
        assert (answer.status_code, answer.json()["code"]) == (409, "vm_not_running")
    client.wait_state("early", "running" if answer.status_code != 200 else "paused")
    client.delete("early")
    for verb in ("pause", "resume"):
        client.problem(404, "vm_gone", "POST", f"/vms/early/{verb}")


# ---- the guest ---------------------------------------------------------------------------------


@pytest.mark.testguest
def test_R02_a_paused_guest_runs_no_instruction(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="busy", memory_mib=backend.memory_mib)
    pid = daemon.vmm_of(vm["instance"])
    client.exec("busy", ["pauses"])
    client.exec("busy", ["chatter", "1000000000"])
    before = int(client.exec("busy", ["chatter"]).out)
    wait_until(lambda: int(client.exec("busy", ["chatter"]).out) > before, what="it is not busy")
    client.pause("busy")
    ran = host.processor_s(pid)
    wait_a_while(PAUSED_S)
    assert host.processor_s(pid) - ran < TICKS_S, "its VMM answers us, and that is all"
    client.resume("busy")
    assert int(client.exec("busy", ["pauses"]).out) >= PAUSED_S * 1000, "it did not look meanwhile"
    wait_until(lambda: host.processor_s(pid) > ran + 0.1, what="it did not go on")


@pytest.mark.linux
def test_R02_a_paused_linux_counts_no_further(
    client: Client, connect: Callable[..., Client], daemon: Daemon, backend: Backend
) -> None:
    client.create(id="counts", memory_mib=backend.memory_mib)
    script = "n=0; while [ ! -e /tmp/over ]; do n=$((n+1)); echo $n >/tmp/n; sleep 0.05; done"
    other = connect(daemon)
    counter = later(lambda: other.exec("counts", ["/bin/sh", "-c", script], timeout_ms=600_000))

    def look() -> tuple[int, float]:
        words = client.exec("counts", ["/bin/cat", "/tmp/n", "/proc/uptime"]).out.split()
        return int(words[0]), float(words[1])

    def counted(more: int) -> bool:
        shell = ["/bin/sh", "-c", "cat /tmp/n 2>/dev/null || echo 0"]
        return int(client.exec("counts", shell).out or 0) >= more

    wait_until(lambda: counted(1), 120, "it does not count")
    long_s = 20.0
    began, (count, uptime) = time.monotonic(), look()
    client.pause("counts")
    paused = time.monotonic()
    wait_a_while(long_s)
    resumed = time.monotonic()
    client.resume("counts")
    count_after, uptime_after = look()
    ran = (paused - began) + (time.monotonic() - resumed)
    assert count_after - count <= ran / 0.05 + 5, "it counted while it was paused"
    if backend.emulated:
        assert uptime_after - uptime < ran + 1, "its clock went on"
    wait_until(lambda: counted(count_after + 1), 120, "it did not go on")
    client.exec("counts", ["/bin/touch", "/tmp/over"])
    assert counter.result(timeout=120).code == 0, "the command ran on over the pause"


# ---- commands ----------------------------------------------------------------------------------


def processes(client: Client) -> str:
    """Of Linux: the command lines."""
    look = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]
    return client.exec("waits", look).out


def wait_begun(client: Client, backend: Backend, words: str) -> None:
    """A command is let in before it begins; paused in between it is refused."""
    if backend.linux:
        wait_until(lambda: words in processes(client), 10)
    else:
        client.exec("waits", ["/bin/echo", "after it"])


def test_R02_a_command_waits_while_its_vm_is_paused(
    daemon: Daemon, client: Client, connect: Callable[..., Client], backend: Backend
) -> None:
    vm = client.create(
        id="waits", memory_mib=backend.memory_mib, idle={"after_s": 3600}, on_unresponsive="delete"
    )
    other = connect(daemon)
    command = later(lambda: other.exec("waits", ["/bin/sleep", "3"], timeout_ms=60_000))
    wait_busy(daemon, vm["instance"])
    wait_begun(client, backend, "sleep 3")
    client.pause("waits")
    wait_a_while(PAUSED_S)
    assert not command.done(), "nothing answers for it"
    client.resume("waits")
    assert command.result(timeout=60).code == 0
    # Its time goes on, and its end is the caller's, not the VM's.
    limit_s = 10 if backend.linux else 2
    body = {"argv": ["/bin/sleep", "600"], "timeout_ms": limit_s * 1000}
    began = time.monotonic()
    late = later(lambda: other.problem(504, "exec_timeout", "POST", "/vms/waits/exec", json=body))
    wait_busy(daemon, vm["instance"])
    wait_begun(client, backend, "sleep 600")
    client.pause("waits")
    assert "paused" in late.result(timeout=60)["detail"]
    assert limit_s <= time.monotonic() - began < limit_s + 2 * GRACE_S + 5
    assert client.get("waits") == {**vm, "state": "paused"}
    client.resume("waits")
    assert client.exec("waits", ["/bin/echo", "on"]).out == "on\n"
    assert client.get("waits")["agent"] == "responsive"
    if backend.linux:
        wait_until(lambda: "sleep 600" not in processes(client), 60, "it was not killed")


# ---- time --------------------------------------------------------------------------------------


@pytest.mark.testguest
def test_R31_a_paused_guest_is_not_taken_for_hung(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """One hangs, and is found and ended; the other was paused before, and is neither."""
    daemon = start(["--answer-timeout-ms=500"])
    client = connect(daemon)
    spec = {"memory_mib": backend.memory_mib, "on_unresponsive": "delete"}
    client.create(id="paused", **spec)
    client.create(id="hangs", **spec)
    client.pause("paused")
    client.request("POST", "/vms/hangs/exec", json={"argv": ["hang"], "timeout_ms": 100})
    assert "exited (unresponsive): its agent" in client.wait_gone("hangs")["detail"]
    now = client.get("paused")
    assert (now["state"], now["agent"]) == ("paused", "responsive")
    client.resume("paused")
    assert client.exec("paused", ["echo", "on"]).out == "on\n"
    # Its VMM is asked all the same.
    client.pause("paused")
    os.kill(daemon.vmm_of(now["instance"]), signal.SIGSTOP)
    assert "exited (unresponsive): its VMM" in client.wait_gone("paused")["detail"]
    daemon.assert_no_leftovers()


@pytest.mark.testguest
def test_R02_a_paused_vm_lives_its_time_and_is_not_idle(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="rests", memory_mib=backend.memory_mib, ttl_s=6, idle={"after_s": 1})
    client.pause("rests")
    client.create(id="idle", memory_mib=backend.memory_mib, idle={"after_s": 1})
    assert "exited (idle)" in client.wait_gone("idle")["detail"]
    assert client.get("rests")["state"] == "paused"
    assert "exited (ttl)" in client.wait_gone("rests")["detail"]
    daemon.assert_no_leftovers()


@pytest.mark.testguest
def test_R31_a_vmm_that_hangs_holds_up_no_delete(
    daemon: Daemon, client: Client, connect: Callable[..., Client], backend: Backend
) -> None:
    vm = client.create(id="hangs", memory_mib=backend.memory_mib)
    os.kill(daemon.vmm_of(vm["instance"]), signal.SIGSTOP)
    callers = [connect(daemon) for _ in range(2)]

    def pause(caller: Client) -> httpx.Response:
        return caller.request("POST", "/vms/hangs/pause")

    pool = ThreadPoolExecutor(len(callers))
    waiting = [pool.submit(pause, caller) for caller in callers]
    told, held = futures.wait(waiting, timeout=30, return_when=futures.FIRST_COMPLETED)
    (second,), (first,) = told, held
    assert second.result().json()["code"] == "busy", "after the time of an answer"
    assert client.get("hangs")["state"] == "running", "it is as it was"
    began = time.monotonic()
    client.delete("hangs")
    ended = first.result(timeout=30).json()
    assert ended["code"] == "vm_gone"
    assert "while it was being paused" in ended["detail"]
    assert time.monotonic() - began < 5
    pool.shutdown()
    daemon.assert_no_leftovers()


# ---- the service -------------------------------------------------------------------------------


def stop(daemon: Daemon) -> None:
    daemon.stop()


@pytest.mark.parametrize(
    "end",
    [kill_root, kill_front, pytest.param(kill_both, marks=pytest.mark.core), stop],
    ids=["root-half", "front", "both", "stop"],
)
def test_R02_a_paused_vm_is_adopted_paused(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    end: Callable[[Daemon], None],
) -> None:
    daemon = start()
    client = connect(daemon)
    client.create(id="still", memory_mib=backend.memory_mib)
    client.create(id="runs", memory_mib=backend.memory_mib)
    paused = client.pause("still")
    before = daemon.vmms()
    if end is stop:
        end(daemon)
    else:
        front = daemon.open_front()
        end(daemon)
        daemon.wait_ended(front)
    daemon.start()
    client = connect(daemon)
    assert daemon.vmms() == before
    assert client.get("still") == paused
    client.problem(409, "vm_paused", "POST", "/vms/still/exec", json={"argv": ["/bin/true"]})
    assert client.exec("runs", ["/bin/echo", "beside"]).out == "beside\n"
    assert client.resume("still")["state"] == "running"
    assert client.exec("still", ["/bin/echo", "on"]).out == "on\n"
    assert kinds(client, "still") == ["paused", "resumed"]
    for vm_id in ("still", "runs"):
        client.delete(vm_id)
    daemon.assert_no_leftovers()


@pytest.mark.parametrize("paused", [True, False], ids=["paused", "runs"])
def test_R02_after_a_kill_in_the_middle_the_vmm_is_believed(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, paused: bool
) -> None:
    """The service died between what the VMM did and what the inventory says of it."""
    daemon = start()
    client = connect(daemon)
    vms = {vm_id: client.create(id=vm_id, memory_mib=backend.memory_mib) for vm_id in ("a", "b")}
    for vm_id in vms:
        if not paused:
            client.pause(vm_id)
    front = daemon.open_front()
    kill_both(daemon)
    daemon.wait_ended(front)
    for vm in vms.values():
        vmm.set_paused(backend, daemon.vmm_of(vm["instance"]), paused)
    daemon.start()
    client = connect(daemon)
    body = {"argv": ["/bin/true"]}
    if paused:
        client.problem(409, "vm_paused", "POST", "/vms/a/exec", json=body)
    else:
        client.expect(200, "POST", "/vms/a/exec", json=body)
    wanted = "paused" if paused else "running"
    assert client.get("a")["state"] == wanted
    client.wait_state("b", wanted)  # nobody asked for it
    client.resume("b")
    assert client.exec("b", ["/bin/echo", "on"]).out == "on\n"
    for vm_id in vms:
        client.delete(vm_id)
    daemon.assert_no_leftovers()


def wait_changes(client: Client, vm_id: str, count: int) -> None:
    wait_until(lambda: len(kinds(client, vm_id)) >= count, what="it is not paused")


@pytest.mark.testguest
def test_R02_a_kill_while_a_vm_is_paused_over_and_over(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """Killed at any moment of it: what the inventory says afterwards is what the VMM does."""
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="vm", memory_mib=backend.memory_mib)
    pid = daemon.vmm_of(vm["instance"])
    for turn in range(8):
        other = connect(daemon)

        def flip(caller: Client = other) -> None:
            try:
                while True:
                    caller.pause("vm")
                    caller.resume("vm")
            except httpx.TransportError:
                return  # the service died

        flips = later(flip)
        wait_changes(client, "vm", 2)
        wait_a_while(turn * 0.003)
        front = daemon.open_front()
        (kill_front if turn % 2 else kill_root)(daemon)
        daemon.wait_ended(front)
        flips.result(timeout=30)
        daemon.start()
        client = connect(daemon)
        wanted = "paused" if vmm.is_paused(backend, pid) else "running"
        client.wait_state("vm", wanted)
        assert client.resume("vm")["state"] == "running"
        assert client.exec("vm", ["echo", "on"]).out == "on\n"
    client.delete("vm")
    daemon.assert_no_leftovers()
