"""After the host was restarted under a running VM: its row says so, and nothing of it is left."""

import json
from pathlib import Path

import pytest

from harness import host
from harness.client import Client
from harness.contract import Contract
from harness.service import SOCKET, install_first_package, run, vmms

pytestmark = pytest.mark.core


def test_R02_R20_a_vm_of_the_last_boot_ended_by_the_reboot_and_left_nothing() -> None:
    assert Path("/var/lib/motte/front/motte.db").exists(), "the inventory outlived the restart"
    install_first_package()
    client = Client(Contract(Path(__file__).parents[3] / "openapi.yaml"), SOCKET)
    assert client.list() == []
    assert "host_reboot" in client.problem(404, "vm_gone", "GET", "/vms/kept")["detail"]
    entries = client.expect(200, "GET", "/vms/kept/audit").json()["entries"]
    assert entries[-1]["detail"] == {"state": "lost", "reason": "host_reboot"}
    assert vmms() == {}
    assert host.cgroups_named("motte") == []
    found = json.loads(run("motted", "leftovers", "--json"))
    assert not any(found[kind] for kind in found if kind != "spare_chains"), found
    client.create(id="kept")
    assert client.exec("kept", ["python3", "-c", "print(6*7)"]).out == "42\n"
    client.delete("kept")
    client.close()
