"""The package as an operator has it: installed, upgraded under a running VM; then the host is
restarted (inside.sh), and test_rebooted.py looks at what is found."""

import subprocess
from pathlib import Path

import pytest

from harness.client import Client
from harness.contract import Contract
from harness.service import (
    HIGHER,
    SOCKET,
    install_first_package,
    install_package,
    main_pid,
    run,
    vmms,
)

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract(Path(__file__).parents[3] / "openapi.yaml")


@pytest.fixture(scope="module")
def vm(contract: Contract) -> int:
    """The process of a VM that stays when the tests end: the restart finds it running."""
    install_first_package()
    client = Client(contract, SOCKET)
    client.create(id="kept")
    client.close()
    (pid,) = vmms()
    return pid


def answers(contract: Contract) -> None:
    client = Client(contract, SOCKET)
    assert client.exec("kept", ["python3", "-c", "print(6*7)"]).out == "42\n"
    client.close()


def test_R02_an_upgrade_keeps_vms_running(vm: int, contract: Contract) -> None:
    answers(contract)
    before = main_pid()
    install_package(higher=True)
    shown = run("dpkg-query", "--showformat=${Version}", "--show", "motte")
    assert shown == HIGHER
    assert main_pid() not in (0, before), "the new version runs"
    assert list(vmms()) == [vm], "in the VM's place is the VM"
    answers(contract)


def test_R02_a_reload_by_systemd_reaches_motted(vm: int, contract: Contract) -> None:
    before = main_pid()
    run("systemctl", "reload", "motted")
    log = subprocess.run(
        ["journalctl", "-u", "motted", "--no-pager", "--grep", "reloaded: "],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "reloaded: no option changed" in log.stdout
    assert main_pid() == before
    assert list(vmms()) == [vm]
    answers(contract)
