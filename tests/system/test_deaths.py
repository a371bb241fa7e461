"""R24, R25: why a VM ended is told in its certificate, its audit and the metrics, also of a VM that
a daemon before this one started, whose exit status nobody learns."""

import contextlib
import errno
import os
import re
import signal
import sqlite3
from collections.abc import Callable
from functools import partial

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.deaths import (
    FIRECRACKER,
    QEMU,
    adopted_victims,
    audit_of,
    certificate_of,
    explained,
    victim_of,
    vmm_of,
)
from harness.metrics import scrape, total
from harness.waiting import wait_until

CONSOLE_MAX = 8192


def test_R25_the_contract_and_the_metrics_know_the_same_reasons(
    client: Client, contract: Contract
) -> None:
    text, _ = scrape(client)
    counted = set(re.findall(r'^motte_vm_ends_total\{reason="(\w+)"\}', text, re.MULTILINE))
    reasons = contract.document["components"]["schemas"]["Reason"]["oneOf"]
    assert counted - {"other"} == {entry["const"] for entry in reasons}
    assert all(entry["description"].endswith(".") for entry in reasons)


@pytest.mark.testguest
@pytest.mark.parametrize("how", FIRECRACKER)
def test_R24_R25_a_death_on_firecracker_is_explained(
    daemon: Daemon, client: Client, backend: Backend, how: str
) -> None:
    explained(victim_of(daemon, client, backend, how), FIRECRACKER[how], adopted=False)


@pytest.mark.testguest
def test_R24_R25_deaths_after_adoption_on_firecracker_are_explained(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    for how, victim in adopted_victims(start, connect, backend, FIRECRACKER).items():
        explained(victim, FIRECRACKER[how], adopted=True)


@pytest.mark.linux
@pytest.mark.emulated
@pytest.mark.parametrize("how", QEMU)
def test_R24_R25_a_death_of_linux_on_qemu_is_explained(
    daemon: Daemon, client: Client, backend: Backend, how: str
) -> None:
    explained(victim_of(daemon, client, backend, how), QEMU[how], adopted=False)


@pytest.mark.linux
@pytest.mark.emulated
def test_R24_R25_deaths_of_linux_after_adoption_on_qemu_are_explained(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    for how, victim in adopted_victims(start, connect, backend, QEMU).items():
        explained(victim, QEMU[how], adopted=True)


@pytest.mark.testguest
def test_R24_a_guest_that_claims_much_hides_nothing(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """What it says on its console tells apart only ends that it made itself."""
    words = ("Kernel panic - not syncing: invented", "motte-agent: bye: shutdown")
    for how in ("killed", "crashed", "cgroup-oom", "blocked-call"):
        victim = victim_of(daemon, client, backend, f"claims-{how}")
        for line in words:
            victim.do("say", line)
        explained(victim, FIRECRACKER[how], adopted=False)


def test_R25_the_end_of_a_ttl_and_a_delete_are_in_the_certificate(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    _, before = scrape(client)
    client.create(id="timed", memory_mib=backend.memory_mib, ttl_s=1)
    client.create(id="unwanted", memory_mib=backend.memory_mib)
    client.delete("unwanted")
    for vm_id, reason in (("timed", "ttl"), ("unwanted", "deleted")):
        certificate = certificate_of(client, vm_id)
        assert (certificate["state"], certificate["reason"]) == ("exited", reason)
        assert "vmm_exited" not in audit_of(client, vm_id)
    _, after = scrape(client)
    for reason in ("ttl", "deleted"):
        labels = {"reason": reason}
        moved = total(after, "motte_vm_ends_total", **labels) - total(
            before, "motte_vm_ends_total", **labels
        )
        assert moved == 1, reason


@pytest.mark.testguest
def test_R25_a_certificate_holds_the_newest_of_the_console_whatever_the_bytes(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    victim = victim_of(daemon, client, backend, "loud")
    victim.do("console", str(CONSOLE_MAX + 1000))
    victim.do("say", 'caf\u00e9 \U0001f600 \x1b[2J "quoted" \\ end\x7f')
    victim.do("reboot")
    console = certificate_of(client, "loud")["console"]
    assert 'caf\u00e9 \U0001f600 \x1b[2J "quoted" \\ end\x7f' in console
    assert "x" * 79 in console
    assert len(console.encode()) <= CONSOLE_MAX + 64  # what was cut in two became U+FFFD


@pytest.mark.testguest
def test_R25_a_certificate_is_its_owners_and_the_newest_of_its_id(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    for how in ("reset", "killed"):
        explained(victim_of(daemon, client, backend, "again"), FIRECRACKER[how], adopted=False)
    assert certificate_of(client, "again")["reason"] == "vmm_crash"
    client.create(id="again", memory_mib=backend.memory_mib)
    assert client.get("again")["state"] == "running", "the living come first"
    client.problem(404, "vm_not_found", "GET", "/vms/never")


# ---- while motted is away ----


@pytest.mark.testguest
def test_R24_R25_who_died_while_motted_was_away_has_what_the_host_still_knows(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    starved, shot = (victim_of(daemon, client, backend, name) for name in ("starved", "shot"))
    pids = [vmm_of(daemon, victim.instance) for victim in (starved, shot)]
    starved.squeeze()
    starved.do("chatter", "15000", "64")  # goes on for a second or more, and then takes memory
    daemon.stop(signal.SIGKILL)
    os.kill(pids[1], signal.SIGKILL)
    wait_until(lambda: not set(pids) & set(daemon.vmms()), 60, "they live")
    client = connect(daemon.start())
    for victim, reason, known_by in (
        (starved, "cgroup_oom", "cgroup"),
        (shot, "vmm_exit", "nothing"),
    ):
        certificate = certificate_of(client, victim.id)
        assert (certificate["state"], certificate["reason"]) == ("lost", reason)
        assert audit_of(client, victim.id)["vmm_exited"]["known_by"] == known_by
    _, samples = scrape(client)
    assert total(samples, "motte_vm_ends_total", reason="cgroup_oom") == 1
    assert total(samples, "motte_vm_ends_total", reason="vmm_exit") == 1
    daemon.assert_no_leftovers()


def removed(cgroup: str) -> bool:
    """A process leaves its cgroup a moment after it has died."""
    try:
        os.rmdir(cgroup)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@pytest.mark.testguest
def test_R25_who_was_there_before_the_host_restarted_is_told_so(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """A restart leaves the inventory, with another boot's id in it, and nothing else."""
    daemon = start()
    vm = connect(daemon).create(id="old", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    daemon.stop()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in daemon.vmms(), 30, "it lives")
    (daemon.run_dir / "priv" / vm["instance"]).unlink()
    for folder in host.cgroups_named(daemon.cgroup):
        wait_until(partial(removed, folder), 30, f"{folder} is busy")
    with contextlib.closing(sqlite3.connect(daemon.state_dir / "front" / "motte.db")) as db, db:
        db.execute("UPDATE vms SET boot = '00000000-0000-4000-8000-000000000000'")
    client = connect(daemon.start())
    certificate = certificate_of(client, "old")
    assert (certificate["state"], certificate["reason"]) == ("lost", "host_reboot")
    _, samples = scrape(client)
    assert total(samples, "motte_vm_ends_total", reason="host_reboot") == 1
    daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R26_a_command_killed_for_want_of_memory_says_so(client: Client, backend: Backend) -> None:
    client.create(id="hungry", memory_mib=backend.memory_mib)
    hog = "a = []\nwhile True: a.append(bytearray(b'x') * (4 << 20))"
    done = client.exec("hungry", ["python3", "-c", hog], timeout_ms=120_000)
    assert (done.signal, done.body["oom_killed"]) == (signal.SIGKILL, True)
    done = client.exec("hungry", ["/bin/sh", "-c", "kill -9 $$"])
    assert (done.signal, done.body["oom_killed"]) == (signal.SIGKILL, False)
