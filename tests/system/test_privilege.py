"""R18 and the two halves: what is missing is named, and what is not needed is not held."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon

BOUNDING = {
    "cap_sys_admin", "cap_sys_chroot", "cap_mknod", "cap_chown", "cap_fowner", "cap_setuid",
    "cap_setgid", "cap_dac_override", "cap_kill", "cap_sys_ptrace", "cap_net_admin", "cap_net_raw",
}  # fmt: skip


@pytest.mark.core
def test_R18_without_net_admin_nothing_starts_and_the_log_says_why(
    start: Callable[..., Daemon],
) -> None:
    daemon = start(running=False)
    before = host.firewall()
    process = daemon.spawn(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
    assert process.wait(timeout=30) != 0
    assert "firewall_no_privilege" in daemon.log or "CAP_NET_ADMIN" in daemon.log, daemon.log
    assert host.firewall() == before
    assert daemon.vmms() == {}


def test_R19_rules_flushed_by_another_tool_come_back_or_stop_new_vms(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="before", memory_mib=backend.memory_mib)
    rules = daemon.vm_rules()
    assert rules
    host.run("iptables-legacy", "-w", "-t", "security", "-F")
    response = client.request("POST", "/vms", json={"memory_mib": backend.memory_mib})
    if response.status_code == 201:
        assert set(rules) <= set(daemon.vm_rules()), "a VM started while the first one had no rules"
    else:
        assert response.json()["code"] == "firewall_out_of_sync", response.text


@pytest.mark.core
def test_R11_the_front_has_no_privilege_left(daemon: Daemon) -> None:
    front = daemon.front_pid
    for thread in os.listdir(f"/proc/{front}/task"):
        status = host.status_of(front, int(thread))
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert "0" not in status["Uid"].split()


@pytest.mark.core
def test_R41_every_thread_of_the_front_is_confined(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """One filter more than it got from the root half; what that refuses, test_confine.c tries."""
    client.create(id="confined", memory_mib=backend.memory_mib)
    inherited = int(host.status_of(daemon.pid)["Seccomp_filters"])
    assert inherited > 0
    threads = os.listdir(f"/proc/{daemon.front_pid}/task")
    assert len(threads) > 1
    for thread in threads:
        status = host.status_of(daemon.front_pid, int(thread))
        assert status["Seccomp"] == "2"
        assert int(status["Seccomp_filters"]) == inherited + 1
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
    files = "landlock" if host.has_landlock() else "their permissions alone"
    assert f"confined: files by {files}" in daemon.log


@pytest.mark.core
def test_R11_the_root_half_keeps_what_it_needs_and_no_more(daemon: Daemon) -> None:
    def names(kind: str) -> set[str]:
        held = int(host.status_of(daemon.pid)[kind], 16)
        return set(host.run("capsh", f"--decode={held:x}").strip().partition("=")[2].split(","))

    assert names("CapBnd") == BOUNDING
    # To cut the bounding set of a VMM's child; no exec gives it back.
    assert names("CapEff") == names("CapPrm") == BOUNDING | {"cap_setpcap"}


def test_R11_the_root_half_links_no_parser_of_foreign_bytes(daemon: Daemon) -> None:
    libraries = host.run("ldd", str(daemon.bin / "motted"))
    for name in ("microhttpd", "cjson", "sqlite3", "curl", "jansson", "gnutls"):
        assert name not in libraries


def test_R11_state_and_records_are_closed_to_others(daemon: Daemon) -> None:
    assert (daemon.run_dir / "priv").stat().st_mode & 0o777 == 0o700
    assert (daemon.run_dir / "priv").stat().st_uid == 0
    front = daemon.state_dir / "front"
    assert front.stat().st_mode & 0o777 == 0o700
    assert front.stat().st_uid == int(host.status_of(daemon.front_pid)["Uid"].split()[0])
    database = Path(front / "motte.db")
    assert database.stat().st_mode & 0o777 == 0o600
