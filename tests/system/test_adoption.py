"""R02: a service that is started again finds its VMs, whatever was killed, replaced or hangs; and
its guests notice nothing. With the test guest, which tells of every pause."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import host
from harness.agent import Agent
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.kills import kill_both, kill_front, kill_root
from harness.metrics import scrape, total
from harness.waiting import wait_until

pytestmark = pytest.mark.testguest

PAUSE_MS = 1000  # the machine's processors are shared, so that a guest waits for its turn
AWAY_MS = 1500
ANSWER_S = 2  # --answer-timeout-ms
MANY = 200
MANY_S = 2.0


def stay_away(pid: int) -> int:
    """Asks the guest until it has been alone for AWAY_MS; its longest pause."""
    with Agent(pid) as agent:
        began = agent.uptime_ms()
        wait_until(lambda: agent.uptime_ms() >= began + AWAY_MS, what="the guest's clock stands")
        return int(agent.run("pauses"))


def terminate(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGTERM)


def replace_programs(daemon: Daemon) -> None:
    """With others that say another version, as an upgrade does: the old ones still run."""
    new = daemon.home / "bin"
    new.mkdir()
    for program in ("motted", "motte-front", "motte-admin"):
        text = (daemon.bin / program).read_bytes()
        (new / program).write_bytes(text.replace(b"0.1.0\0", b"0.1.9\0"))
        shutil.copymode(daemon.bin / program, new / program)
    daemon.bin = new
    terminate(daemon)


@pytest.mark.parametrize("end", [kill_root, kill_front, kill_both, terminate, replace_programs])
def test_R02_a_guest_sees_no_pause_when_the_service_is_started_again(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    end: Callable[[Daemon], None],
) -> None:
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="on", memory_mib=backend.memory_mib)
    pid = daemon.vmm_of(vm["instance"])
    client.exec("on", ["pauses"])
    front = daemon.open_front()
    end(daemon)
    daemon.wait_ended(front)
    pauses = [stay_away(pid)]
    daemon.start()
    client = connect(daemon)
    assert daemon.vmm_of(vm["instance"]) == pid
    assert client.get("on") == vm
    pauses.append(int(client.exec("on", ["pauses"]).out))
    assert max(pauses) < PAUSE_MS, pauses
    version = client.expect(200, "GET", "/capabilities").json()["version"]
    assert version == ("0.1.9" if end is replace_programs else "0.1.0")
    # The guest would tell: a VMM that is stopped is a pause of that time.
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + AWAY_MS / 1000, what="time stands")
    os.kill(pid, signal.SIGCONT)
    assert int(client.exec("on", ["pauses"]).out) >= PAUSE_MS
    client.delete("on")
    daemon.assert_no_leftovers()


def ready_after(daemon: Daemon) -> float:
    began = time.monotonic()
    daemon.start()
    return time.monotonic() - began


def test_R02_a_vmm_that_hangs_delays_nobodys_adoption(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """More of them than there are threads that could wait for them."""
    daemon = start()
    client = connect(daemon)
    well = [f"well-{n}" for n in range(4)]
    hung = [f"hung-{n}" for n in range(20)]
    pids = {}
    for vm_id in hung + well:
        vm = client.create(id=vm_id, memory_mib=backend.memory_mib)
        pids[vm_id] = daemon.vmm_of(vm["instance"])
    daemon.stop()
    usual = ready_after(daemon)
    daemon.stop()
    for vm_id in hung:
        os.kill(pids[vm_id], signal.SIGSTOP)
    assert ready_after(daemon) < usual + ANSWER_S / 2
    client = connect(daemon)
    assert {vm["id"] for vm in client.list()} == {*hung, *well}
    for vm_id in well:
        assert client.exec(vm_id, ["echo", vm_id]).out == f"{vm_id}\n"
    # One comes to itself in time; the watchdog has the others.
    os.kill(pids["hung-0"], signal.SIGCONT)
    for vm_id in hung[1:]:
        assert "unresponsive" in client.wait_gone(vm_id)["detail"]
    assert client.exec("hung-0", ["echo", "back"]).out == "back\n"
    for vm_id in [*well, "hung-0"]:
        assert daemon.vmm_of(client.get(vm_id)["instance"]) == pids[vm_id]
        client.delete(vm_id)
    _, samples = scrape(client)
    assert total(samples, "motte_unresponsive_total", what="vmm") == len(hung) - 1
    daemon.assert_no_leftovers()


def test_R02_two_hundred_vms_are_adopted_in_two_seconds(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    record_property: Callable[[str, object], None],
) -> None:
    daemon = start(["--memory-overcommit=4"])
    ids = [f"many-{n}" for n in range(MANY)]
    clients = [connect(daemon) for _ in range(4)]

    def create(n: int) -> None:
        for vm_id in ids[n :: len(clients)]:
            clients[n].create(id=vm_id, memory_mib=backend.memory_mib)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(create, range(len(clients))))
    before = daemon.vmms()
    assert len(before) == MANY
    front = daemon.open_front()
    kill_both(daemon)
    daemon.wait_ended(front)
    took = ready_after(daemon)
    work = host.processor_s(daemon.pid) + host.processor_s(daemon.front_pid)
    print(f"{MANY} VMs adopted, ready after {took:.2f} s, {work:.2f} s of them work of both halves")
    record_property("adoption_s", round(took, 3))
    said = re.findall(r"recovered: (\d+) adopted, (\d+) undone, (\d+) lost", daemon.log)
    assert said[-1] == (str(MANY), "0", "0")
    assert daemon.vmms() == before
    client = connect(daemon)
    assert {vm["id"] for vm in client.list(limit=500)} == set(ids)
    for vm_id in ids[:: MANY // 20]:
        assert client.exec(vm_id, ["echo", vm_id]).out == f"{vm_id}\n"
    rss = int(host.status_of(daemon.front_pid)["VmRSS"].split()[0])
    print(f"resident memory of the front: {rss} KiB")
    # What others do on this machine is not ours: the work alone, as if there were one processor.
    assert work < MANY_S, f"{work:.2f} s of work, ready after {took:.2f} s"
