"""R17 to R20 with a running daemon: chains made ahead, other programs at the tables, and that the
host's firewall is as before when all is gone."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client, Refused
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until

Start = Callable[..., Daemon]
Connect = Callable[..., Client]

FAMILIES = ("iptables-legacy", "ip6tables-legacy")


def gauge(client: Client, name: str) -> float:
    return total(scrape(client)[1], name)


def in_sync(client: Client) -> bool:
    return bool(client.expect(200, "GET", "/capabilities").json()["firewall"]["in_sync"])


def chains_of_uids() -> Counter[str]:
    """How many chains each uid leads to, in each family."""
    found: Counter[str] = Counter()
    for name, lines in host.firewall().items():
        for line in lines:
            words = line.split()
            if "--uid-owner" in words and host.VM_CHAIN.search(words[-1]):
                found[f"{name} {words[words.index('--uid-owner') + 1]}"] += 1
    return found


@pytest.mark.core
def test_R19_flushed_rules_are_noticed_repaired_and_counted(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="guarded", memory_mib=backend.memory_mib)
    wait_until(lambda: gauge(client, "motte_firewall_in_sync") == 1)
    rules = set(daemon.vm_rules())
    for program in FAMILIES:
        before = scrape(client)[1]
        host.run(program, "-w", "5", "-t", "security", "-F")
        wait_until(
            lambda before=before: (  # type: ignore[misc]
                gauge(client, "motte_firewall_repairs_total")
                > total(before, "motte_firewall_repairs_total")
            ),
            10,
        )
        after = scrape(client)[1]
        assert total(after, "motte_firewall_drifts_total") == 1 + total(
            before, "motte_firewall_drifts_total"
        )
        wait_until(lambda: in_sync(client))
        assert set(daemon.vm_rules()) == rules
        assert client.expect(200, "GET", "/vms/guarded/isolation").json()["ok"]


def test_R19_no_vm_starts_while_the_rules_are_not_as_they_were_made(
    daemon: Daemon, client: Client, backend: Backend, tmp_path: Path
) -> None:
    """One program holds the lock, so that the repair must wait; another heeds none and flushes."""
    client.create(id="before", memory_mib=backend.memory_mib)
    running = daemon.vmms()
    with host.locked():
        host.run("iptables-legacy", "-t", "security", "-F", lock=str(tmp_path / "lock"))
        for _ in range(3):
            client.problem(503, "firewall_out_of_sync", "POST", "/vms", json={"id": "not-yet"})
        wait_until(lambda: not in_sync(client))
        assert gauge(client, "motte_firewall_in_sync") == 0
        client.problem(503, "firewall_out_of_sync", "POST", "/vms", json={"id": "not-yet"})
        assert daemon.vmms() == running
    wait_until(lambda: in_sync(client))
    client.create(id="not-yet", memory_mib=backend.memory_mib)
    assert client.expect(200, "GET", "/vms/before/isolation").json()["ok"]


def test_R19_a_flush_of_filter_does_not_reach_the_rules(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """They are in `security`, behind it: what firewall tools flush and restore all day."""
    assert client.expect(200, "GET", "/capabilities").json()["firewall"]["ipv4"] == "security"
    client.create(id="apart", memory_mib=backend.memory_mib)
    rules, before = daemon.vm_rules(), gauge(client, "motte_firewall_drifts_total")
    for program in FAMILIES:
        host.run(program, "-w", "5", "-t", "filter", "-I", "OUTPUT", "-j", "ACCEPT")
        host.run(program, "-w", "5", "-t", "filter", "-F")
    client.create(id="goes-on", memory_mib=backend.memory_mib)
    client.delete("goes-on")
    assert daemon.vm_rules() == rules
    assert gauge(client, "motte_firewall_drifts_total") == before
    assert client.expect(200, "GET", "/vms/apart/isolation").json()["ok"]


def test_R18_a_lock_held_by_another_tool_stops_spawns_when_no_chain_is_ready(
    start: Start, connect: Connect, backend: Backend
) -> None:
    """Chains made ahead serve meanwhile, and deletes need no lock. With two uids there are two."""
    daemon = start(["--uid-count=2"])
    client = connect(daemon)
    wait_until(lambda: gauge(client, "motte_firewall_spare_chains") == 2)
    with host.locked():
        for vm_id in ("a", "b"):
            client.create(id=vm_id, memory_mib=backend.memory_mib)
        client.delete("a")
        body = client.problem(503, "firewall_lock_timeout", "POST", "/vms", json={"id": "c"})
        assert "xtables.lock" in body["detail"] + body["remediation"]
        assert "step admit" in body["detail"]
        assert len(set(daemon.vmms().values())) == 1
        daemon.assert_no_leftovers()
    client.create(id="c", memory_mib=backend.memory_mib)
    client.problem(503, "capacity_exhausted", "POST", "/vms", json={"id": "d"})
    assert max(chains_of_uids().values()) == 1


@pytest.mark.testguest
def test_R17_eighty_at_once_share_commits_and_no_uid(daemon: Daemon, connect: Connect) -> None:
    many = 80
    clients = [connect(daemon) for _ in range(many)]
    with ThreadPoolExecutor(many) as pool:
        made = list(
            pool.map(lambda at: clients[at].create(id=f"many-{at}", memory_mib=128), range(many))
        )
    uids = Counter(daemon.vmms().values())
    assert len(uids) == many
    owners = chains_of_uids()
    assert max(owners.values()) == 1
    rules = daemon.vm_rules()
    for vm in made:
        assert any(f"-N {host.chain_of(vm['instance'])}" == line for line in rules), vm["id"]
    client = clients[0]
    middle = made.pop(many // 2)
    keep = {host.chain_of(vm["instance"]) for vm in made}
    before = [line for line in daemon.vm_rules() if host.is_about(line, keep)]
    client.delete(middle["id"])
    wait_until(lambda: not any(host.chain_of(middle["instance"]) in r for r in all_rules()))
    assert Counter(r for r in daemon.vm_rules() if host.is_about(r, keep)) == Counter(before)
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(lambda at: clients[at].delete(made[at]["id"]), range(len(made))))


def all_rules() -> list[str]:
    return [line for lines in host.firewall().values() for line in lines]


def test_R20_after_stop_and_purge_the_tables_hold_what_they_held(
    start: Start, connect: Connect, backend: Backend
) -> None:
    """Foreign rules and their counters to the byte, and no chain of ours. After the stop alone, the
    roots stand and nothing else of ours, since no VM runs."""
    daemon = start(running=False)
    foreign = ("-p", "udp", "--dport", "9", "-j", "ACCEPT")
    for program in FAMILIES:
        for table in ("filter", "security"):
            host.run(program, "-w", "5", "-t", table, "-A", "OUTPUT", *foreign)
    try:
        send = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
        host.run("/usr/bin/python3", "-c", send)
        others = [line for line in host.counted_rules() if "MOTTE_" not in line]
        assert any(line.startswith("[1:") for line in others), others
        client = connect(daemon.start())
        ids = [f"vm-{number}" for number in range(2 if backend.emulated else 6)]
        for vm_id in ids:
            client.create(id=vm_id, memory_mib=backend.memory_mib)
        for vm_id in ids:
            client.delete(vm_id)
        assert daemon.vm_rules() == []
        daemon.stop()
        left = all_rules()
        assert not [line for line in left if host.VM_CHAIN.search(line)], "a chain outlives a stop"
        assert not [line for line in left if host.INNER_CHAIN.search(line)]
        daemon.purge()
        assert not [line for line in all_rules() if "MOTTE_" in line]
        assert host.counted_rules() == others
    finally:
        for program in FAMILIES:
            for table in ("filter", "security"):
                host.run(program, "-w", "5", "-t", table, "-D", "OUTPUT", *foreign)


@pytest.mark.testguest
def test_R20_a_kill_at_any_time_leaves_no_uid_shared_and_no_chain_unowned(
    start: Start, connect: Connect
) -> None:
    """Killed while chains are made, taken and retired; what runs keeps its own."""
    daemon = start()
    for turn in range(6):
        clients = [connect(daemon) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            work = [pool.submit(churn, clients[n], f"t{turn}-{n}") for n in range(8)]
            wanted = turn * 3 + 1
            while len(daemon.vmms()) < wanted and not all(done.done() for done in work):
                pass
            front = daemon.open_front()
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait_ended(front)
        daemon.start()
        running = connect(daemon).list(limit=500)
        uids = Counter(daemon.vmms().values())
        assert len(uids) == len(running)
        owned = {host.chain_of(vm["instance"]) for vm in running}
        names = {name for line in all_rules() for name in host.VM_CHAIN.findall(line)}
        assert owned <= names
        assert names <= owned | daemon.spare_chains()
        assert max(chains_of_uids().values(), default=0) <= 1
        for uid in uids:
            assert sum(key.endswith(f" {uid}") for key in chains_of_uids()) == len(FAMILIES)
        daemon.assert_no_leftovers()


def churn(client: Client, vm_id: str) -> None:
    """Until the service dies, or the host is full."""
    try:
        for number in range(1000):
            client.create(id=f"{vm_id}-{number}", memory_mib=128)
            if number % 3 != 2:
                client.delete(f"{vm_id}-{number}")
    except (httpx.TransportError, Refused):
        return


@pytest.mark.core
def test_R16_dropped_packets_show_in_log_and_metrics(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """What a VMM that broke out of its namespace sends is counted under its instance, and stays
    counted when it is gone."""
    vm = client.create(id="loud", memory_mib=backend.memory_mib)
    client.create(id="quiet", memory_mib=backend.memory_mib)
    before = gauge(client, "motte_firewall_dropped_packets_total")
    assert gauge(client, "motte_vm_dropped_packets_total") == 0
    lines = client.expect(200, "GET", "/vms/loud/isolation").json()["lines"]
    uid = next(line["value"] for line in lines if line["name"] == "uid")
    send = "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
    as_uid = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    for _ in range(3):
        host.run(*as_uid, "/usr/bin/python3", "-c", send, check=False)
    wait_until(lambda: gauge(client, "motte_vm_dropped_packets_total") == 3)
    _, samples = scrape(client)
    series = {name: n for name, n in samples.items() if name.startswith("motte_vm_dropped")}
    assert series == {f'motte_vm_dropped_packets_total{{instance="{vm["instance"]}"}}': 3}
    assert f"packets of instance {vm['instance']}" in daemon.log
    host.run(*as_uid, "/usr/bin/python3", "-c", send, check=False)
    client.delete("loud")
    wait_until(lambda: gauge(client, "motte_firewall_dropped_packets_total") == before + 4)
    assert gauge(client, "motte_vm_dropped_packets_total") == 0


def test_R14_a_host_that_hides_bridged_packets_is_warned_of_at_start(start: Start) -> None:
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")  # of the test's own network
    before = setting.read_text(encoding="ascii") if setting.exists() else None
    try:
        if before is not None:
            setting.write_text("0", encoding="ascii")
        daemon = start()
        assert ("bridge-nf-call-iptables is 0" in daemon.log) == (before is not None), daemon.log
    finally:
        if before is not None:
            setting.write_text(before, encoding="ascii")
