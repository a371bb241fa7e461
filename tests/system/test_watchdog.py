"""R31: a VMM that stops answering and an agent that hangs are noticed, told, and ended where they
must be. With the test guest, which hangs when told to."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until

pytestmark = pytest.mark.testguest

GRACE_S = 5  # vsock/exec.c
CONNECT_S = 5  # vmm/internal.h
NOTICED_S = 10 + 3 * 2 + 4  # a period, three timeouts of --answer-timeout-ms, and some


def told(client: Client, vm_id: str) -> list[tuple[str, Any]]:
    """What the watchdog wrote into a VM's audit."""
    entries = client.expect(200, "GET", f"/vms/{vm_id}/audit").json()["entries"]
    return [
        (entry["kind"], entry["detail"]["what"])
        for entry in entries
        if entry["kind"] in ("unresponsive", "responsive")
    ]


def hang(client: Client, vm_id: str) -> None:
    """The guest stops for ever; its VMM lives on."""
    began = time.monotonic()
    body = {"argv": ["hang"], "timeout_ms": 300}
    client.problem(504, "guest_unresponsive", "POST", f"/vms/{vm_id}/exec", json=body)
    assert time.monotonic() - began < 0.3 + GRACE_S + CONNECT_S + 1


def test_R31_a_vmm_that_stops_answering_is_killed(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    stops = client.create(id="stops", memory_mib=backend.memory_mib)
    client.create(id="neighbour", memory_mib=backend.memory_mib)
    _, before = scrape(client)
    os.kill(daemon.vmm_of(stops["instance"]), signal.SIGSTOP)
    began = time.monotonic()
    gone = client.wait_gone("stops", NOTICED_S)
    assert time.monotonic() - began > 3 * 2 - 2, "it had three times two seconds"
    assert "exited (unresponsive): its VMM did not answer 3 times" in gone["detail"]
    assert told(client, "stops") == [("unresponsive", "vmm")]
    _, after = scrape(client)
    for family, labels in {
        "motte_unresponsive_total": {"what": "vmm"},
        "motte_vm_ends_total": {"reason": "unresponsive"},
    }.items():
        assert total(after, family, **labels) == total(before, family, **labels) + 1
    assert client.exec("neighbour", ["echo", "well"]).out == "well\n"
    client.delete("neighbour")
    daemon.assert_no_leftovers()


def test_R31_a_vmm_that_stops_for_a_moment_lives(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="pauses", memory_mib=backend.memory_mib)
    pid = daemon.vmm_of(vm["instance"])
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 3, what="time stands")
    os.kill(pid, signal.SIGCONT)
    assert client.exec("pauses", ["echo", "on"]).out == "on\n"
    assert told(client, "pauses") in ([], [("unresponsive", "agent"), ("responsive", "agent")])


def test_R31_an_agent_that_hangs_is_told_and_its_vm_kept(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="hangs", memory_mib=backend.memory_mib)
    assert (vm["agent"], vm["on_unresponsive"]) == ("responsive", "keep")
    _, before = scrape(client)
    hang(client, "hangs")
    now = client.get("hangs")
    assert (now["state"], now["agent"]) == ("running", "unresponsive")
    assert told(client, "hangs") == [("unresponsive", "agent")]
    _, after = scrape(client)
    for what, more in (("agent", 1), ("vmm", 0)):
        moved = total(after, "motte_unresponsive_total", what=what)
        assert moved == total(before, "motte_unresponsive_total", what=what) + more
    # The next command's deadline holds too, and is the command's alone.
    hang(client, "hangs")
    daemon.stop()
    daemon.start()
    now = client.get("hangs")
    assert (now["state"], now["agent"]) == ("running", "unresponsive"), "a restart knows it"
    client.delete("hangs")
    daemon.assert_no_leftovers()


def test_R31_an_agent_that_hangs_is_noticed_without_a_command(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The service is away when it begins to hang, and nobody asks afterwards."""
    daemon = start()
    client = connect(daemon)
    client.create(id="kept", memory_mib=backend.memory_mib)
    client.create(id="ends", memory_mib=backend.memory_mib, on_unresponsive="delete")
    for vm_id in ("kept", "ends"):
        body = {"argv": ["hang"], "timeout_ms": 1_000_000}
        with pytest.raises(Exception, match="timed out"):
            client.request("POST", f"/vms/{vm_id}/exec", json=body, timeout=1)
    os.kill(daemon.front_pid, signal.SIGKILL)
    daemon.wait_ended()
    daemon.start()
    client = connect(daemon)
    gone = client.wait_gone("ends", NOTICED_S)
    assert "exited (unresponsive): its agent did not answer 3 times" in gone["detail"]
    wait_until(lambda: client.get("kept")["agent"] == "unresponsive", NOTICED_S)
    assert client.get("kept")["state"] == "running"
    assert told(client, "kept") == told(client, "ends") == [("unresponsive", "agent")]
    client.delete("kept")
    daemon.assert_no_leftovers()


def test_R31_an_agent_that_answers_again_is_told_too(client: Client, backend: Backend) -> None:
    client.create(id="sulks", memory_mib=backend.memory_mib)
    body = {"argv": ["lie", "silent"], "timeout_ms": 100}
    client.problem(504, "guest_unresponsive", "POST", "/vms/sulks/exec", json=body)
    wait_until(lambda: client.get("sulks")["agent"] == "responsive")
    assert told(client, "sulks") == [("unresponsive", "agent"), ("responsive", "agent")]
