"""Motte as an operator has it: installed, started by systemd, in a whole host of its own."""

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import host
from harness.client import Client
from harness.contract import Contract
from harness.service import ALONE, CONFIG, SOCKET, fill_catalogue, main_pid, run, vmms
from harness.waiting import wait_until

pytestmark = pytest.mark.core


def front_pid() -> int:
    return next(
        pid for pid in host.children(main_pid()) if host.status_of(pid)["Name"] == "motte-front"
    )


def wait_restarted(old: int) -> None:
    """systemd starts it anew by itself; active means that recovery is done."""

    def back() -> bool:
        shown = run("systemctl", "show", "--property=MainPID,ActiveState", "motted")
        fields = dict(line.split("=", 1) for line in shown.splitlines())
        return fields["ActiveState"] == "active" and int(fields["MainPID"]) not in (0, old)

    wait_until(back, 60, "motted did not come back")


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    """What deploy/quickstart.sh does after `cmake --install`; with patience, since processors that
    are emulated answer late."""
    run("useradd", "--system", "--user-group", "--no-create-home", "motte")
    example = CONFIG.with_suffix(".conf.example").read_bytes()
    CONFIG.write_bytes(example + b"answer-timeout-ms = 60000\n" + ALONE)
    fill_catalogue()
    run("systemctl", "start", "motted")
    yield
    run("systemctl", "stop", "motted")


@pytest.fixture
def client(service: None) -> Iterator[Client]:
    client = Client(Contract(Path(__file__).parents[3] / "openapi.yaml"), SOCKET)
    yield client
    client.close()


@pytest.fixture
def vm(client: Client) -> Iterator[dict[str, Any]]:
    made = client.create(id="kept")
    yield made
    again = Client(client.contract, SOCKET)
    again.delete("kept")
    again.close()
    assert vmms() == {}


def answers(contract: Contract, pid: int) -> None:
    """The VM is still the same process, and commands run in it; over a connection of its own."""
    client = Client(contract, SOCKET)
    assert client.get("kept")["state"] == "running"
    assert client.exec("kept", ["python3", "-c", "print(6*7)"]).out == "42\n"
    client.close()
    assert list(vmms()) == [pid]


def test_R01_R26_a_service_runs_vms_outside_its_own_cgroup(
    client: Client, vm: dict[str, Any]
) -> None:
    assert (vm["hypervisor"], vm["isolation"]) == ("firecracker", "kvm")
    (pid,) = vmms()
    cgroup = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").strip()
    assert cgroup == f"0::/motte/{vm['instance']}"
    assert "motted.service" in Path(f"/proc/{main_pid()}/cgroup").read_text(encoding="utf-8")
    answers(client.contract, pid)


def test_R02_vms_outlive_a_restart_of_the_service(client: Client, vm: dict[str, Any]) -> None:
    (pid,) = vmms()
    before = main_pid()
    run("systemctl", "restart", "motted")
    assert main_pid() != before
    answers(client.contract, pid)


@pytest.mark.parametrize("half", [main_pid, front_pid])
def test_R02_systemd_brings_both_halves_back(client: Client, vm: dict[str, Any], half: Any) -> None:
    (pid,) = vmms()
    before = main_pid()
    os.kill(half(), signal.SIGKILL)
    wait_restarted(before)
    answers(client.contract, pid)


def test_R20_stop_keeps_vms_and_purge_leaves_nothing(service: None, client: Client) -> None:
    client.create(id="purged")
    (pid,) = vmms()
    run("systemctl", "stop", "motted")
    assert list(vmms()) == [pid]
    ended = os.pidfd_open(pid)
    run("motted", "--purge", f"--config={CONFIG}")
    assert select.select([ended], [], [], 30)[0], "the VM outlives the purge"
    os.close(ended)
    assert vmms() == {}
    assert host.cgroups_named("motte") == []
    assert not any("MOTTE" in line for lines in host.firewall().values() for line in lines)
    run("systemctl", "start", "motted")
    found = json.loads(run("motted", "leftovers", "--json"))
    assert not any(found[kind] for kind in found if kind != "spare_chains"), found
    again = Client(client.contract, SOCKET)
    problem = again.problem(404, "vm_gone", "GET", "/vms/purged")
    assert problem["detail"]
    again.close()
