"""What keeps a VM in: read back from the kernel, and tried from inside."""

import ctypes
import datetime
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total
from harness.waiting import wait_until

NAMESPACES = ("net", "mnt", "pid", "ipc", "uts")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def vmm_of(daemon: Daemon) -> int:
    """The process of the only VM."""
    pids = sorted(daemon.vmms())
    assert len(pids) >= 1
    return pids[0]


@pytest.mark.core
def test_R21_the_image_cannot_be_written_by_a_guest(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    before = digest(daemon.disk)
    client.create(id="writer", memory_mib=backend.memory_mib)
    client.create(id="reader", memory_mib=backend.memory_mib)
    first = client.exec("reader", backend.read_disk()).out.strip()
    assert first == daemon.disk.read_bytes()[:16].hex()
    tried = client.exec("writer", backend.write_disk(), timeout_ms=60000)
    assert backend.disk_refused(tried.out), tried
    assert client.exec("writer", backend.read_disk()).out.strip() == first
    assert client.exec("reader", backend.read_disk()).out.strip() == first
    assert digest(daemon.disk) == before


@pytest.mark.linux
def test_R21_two_vms_do_not_see_each_others_files(client: Client, backend: Backend) -> None:
    for vm_id in ("left", "right"):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    script = "echo secret >/root/mine && echo changed >/etc/hostname && cat /root/mine"
    assert client.exec("left", ["/bin/sh", "-c", script]).out == "secret\n"
    seen = client.exec("right", ["/bin/sh", "-c", "cat /root/mine; cat /etc/hostname"])
    assert "secret" not in seen.out
    assert "changed" not in seen.out


@pytest.mark.core
@pytest.mark.linux
def test_R16_a_guest_has_no_network_but_its_own_loopback(client: Client, backend: Backend) -> None:
    client.create(id="lonely", memory_mib=backend.memory_mib)
    devices = client.exec("lonely", ["/bin/sh", "-c", "ls /sys/class/net"]).out.split()
    assert set(devices) <= {"lo"}


@pytest.mark.core
def test_R22_every_thread_of_a_vmm_is_filtered_and_without_privilege(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="jailed", memory_mib=backend.memory_mib)
    assert vm["seccomp"] == "minimal"
    launcher = max(
        int(host.status_of(daemon.pid, int(thread))["Seccomp_filters"])
        for thread in os.listdir(f"/proc/{daemon.pid}/task")
    )
    # QEMU's own -sandbox comes on top of ours.
    filters = launcher + (2 if backend.emulated else 1)
    pid = vmm_of(daemon)
    uid = daemon.vmms()[pid]
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    assert len(threads) >= 2
    for thread in threads:
        status = host.status_of(pid, thread)
        shown = {key: status[key] for key in ("Seccomp", "NoNewPrivs", "CapEff", "CapPrm")}
        assert shown == {
            "Seccomp": "2",
            "NoNewPrivs": "1",
            "CapEff": "0000000000000000",
            "CapPrm": "0000000000000000",
        }, f"thread {thread} ({status['Name']})"
        assert int(status["Seccomp_filters"]) == filters, f"thread {status['Name']}"
        assert status["Uid"].split() == [str(uid)] * 4
        assert status["Gid"].split() == [str(uid)] * 4


@pytest.mark.core
def test_R26_uids_and_namespaces_are_a_vms_own(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    for vm_id in ("one", "two"):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    vmms = daemon.vmms()
    assert len(set(vmms.values())) == 2
    pids = {uid: pid for pid, uid in vmms.items()}
    for name in NAMESPACES:
        links = {os.readlink(f"/proc/{pid}/ns/{name}") for pid in pids.values()}
        links.add(os.readlink(f"/proc/self/ns/{name}"))
        assert len(links) == 3, name


SCHED_GETATTR = 315
SLICE_NS = 100_000


def time_slices(pid: int) -> set[int]:
    """Of its threads, in nanoseconds: sched_runtime of sched_getattr(2)."""
    attr = ctypes.create_string_buffer(48)
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        failed = ctypes.CDLL(None, use_errno=True).syscall(SCHED_GETATTR, int(thread), attr, 48, 0)
        assert not failed, os.strerror(ctypes.get_errno())
        found.add(struct.unpack_from("Q", attr, 24)[0])
    return found


@pytest.mark.core
def test_R03_the_service_waits_less_for_a_processor_than_a_vm(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(memory_mib=backend.memory_mib)
    linux = tuple(map(int, os.uname().release.split(".")[:2]))
    wanted = {SLICE_NS} if linux >= (6, 12) else {0}
    assert time_slices(daemon.pid) == time_slices(daemon.front_pid) == wanted
    assert time_slices(vmm_of(daemon)) == time_slices(os.getpid())


@pytest.mark.core
def test_R26_core_dumps_are_off_and_limits_are_set(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    vm = client.create(id="limited", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon)
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8").splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="utf-8").strip() == "0"
    folders = [
        Path(name) for name in host.cgroups_named(daemon.cgroup) if name.endswith(vm["instance"])
    ]
    quota = vm["vcpus"] * 100_000
    one = {"memory.swappiness": "0", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": f"{quota}"}
    two = {"memory.swap.max": "0", "cpu.max": f"{quota} 100000"}
    memory, wanted = "memory.limit_in_bytes", one
    if len(folders) == 1:
        memory, wanted = "memory.max", two
    values = {
        name: (folder / name).read_text(encoding="utf-8").strip()
        for folder in folders
        for name in (memory, "pids.max", *wanted)
        if (folder / name).exists()
    }
    assert backend.memory_mib << 20 < int(values[memory]) < (backend.memory_mib + 512) << 20
    assert 0 < int(values["pids.max"]) <= 256
    assert {name: values.get(name) for name in wanted} == wanted


@pytest.mark.core
def test_R16_loopback_in_a_vmms_namespace_is_down(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="down", memory_mib=backend.memory_mib)
    links = subprocess.run(
        ["nsenter", f"--net=/proc/{vmm_of(daemon)}/ns/net", "ip", "-o", "link"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert len(links) == 1, links
    assert " lo:" in links[0]
    assert "state DOWN" in links[0]


@pytest.mark.core
def test_R16_a_process_with_a_vms_uid_sends_nothing_from_the_hosts_namespace(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """A VMM that broke out of its namespace: its packets end in its own chain. The host's network
    namespace is the test's own here."""
    client.create(id="escaped", memory_mib=backend.memory_mib)
    uid = daemon.vmms()[vmm_of(daemon)]
    script = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "try: s.sendto(b'x',('127.0.0.1',9)); print('sent')\n"
        "except PermissionError: print('refused')\n"
    )
    as_uid = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    tried = host.run(*as_uid, "/usr/bin/python3", "-c", script)
    other = host.run("setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", script)
    assert (tried.strip(), other.strip()) == ("refused", "sent")
    counted = host.run("iptables-legacy", "-t", "security", "-L", "-v", "-x", "-n")
    dropped = [
        int(line.split()[0])
        for block in counted.split("Chain MOTTE_")[1:]
        if len(block.split()[0]) == 20
        for line in block.splitlines()[2:3]
    ]
    assert sum(dropped) >= 1, counted


@pytest.mark.core
@pytest.mark.parametrize("level", ["minimal", "basic"])
def test_R23_each_level_serves_commands(client: Client, backend: Backend, level: str) -> None:
    vm = client.create(id=level, seccomp=level, memory_mib=backend.memory_mib)
    assert vm["seccomp"] == level
    assert client.exec(level, ["/bin/echo", level]).out == f"{level}\n"


# ---- GET /vms/{id}/isolation ------------------------------------------------------------------


def report_of(client: Client, vm_id: str) -> dict[str, Any]:
    report: dict[str, Any] = client.expect(200, "GET", f"/vms/{vm_id}/isolation").json()
    return report


def wrong_lines(report: dict[str, Any]) -> set[str]:
    return {line["name"] for line in report["lines"] if line["state"] in ("wrong", "absent")}


@pytest.mark.core
def test_R22_R26_the_isolation_report_of_a_sound_vm(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    before = datetime.datetime.now(datetime.UTC)
    vm = client.create(id="sound", memory_mib=backend.memory_mib)
    report = report_of(client, "sound")
    assert (report["id"], report["instance"]) == ("sound", vm["instance"])
    age = datetime.datetime.fromisoformat(report["at"].replace("Z", "+00:00")) - before
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert report["ok"], report
    assert {line["detail"] for line in report["lines"] if line["state"] == "ok"} == {""}
    lines = {line["name"]: line for line in report["lines"]}
    schema = client.contract.document["components"]["schemas"]["IsolationLine"]
    assert list(lines) == schema["properties"]["name"]["enum"]
    pid = vmm_of(daemon)
    assert lines["uid"]["value"] == daemon.vmms()[pid]
    for name in NAMESPACES:
        shown = lines[f"namespace_{name}"]["value"]
        assert os.readlink(f"/proc/{pid}/ns/{name}") == f"{name}:[{shown}]"
    threads = len(os.listdir(f"/proc/{pid}/task"))
    assert 2 <= lines["seccomp"]["value"] <= threads
    assert 0 < lines["cgroup_memory"]["value"] < (backend.memory_mib + 512) << 20


@pytest.mark.core
def test_R26_a_loosened_limit_shows_in_report_and_metric(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="loose", memory_mib=backend.memory_mib)
    other = client.create(id="tight", memory_mib=backend.memory_mib)
    _, before = scrape(client)
    folders = [
        Path(folder)
        for folder in host.cgroups_named(daemon.cgroup)
        if (Path(folder) / "pids.max").exists() and not folder.endswith(other["instance"])
    ]
    assert len(folders) == 1
    limit = folders[0] / "pids.max"
    made = limit.read_text(encoding="utf-8").strip()
    limit.write_text("max", encoding="utf-8")
    report = report_of(client, "loose")
    assert (report["ok"], wrong_lines(report)) == (False, {"cgroup_pids"})
    detail = next(line["detail"] for line in report["lines"] if line["name"] == "cgroup_pids")
    assert "pids.max" in detail
    assert report_of(client, "tight")["ok"]
    limit.write_text(made, encoding="utf-8")
    assert report_of(client, "loose")["ok"]
    _, after = scrape(client)
    moved = {
        name: after[name] - before[name]
        for name in after
        if name.startswith("motte_isolation_failures_total") and after[name] != before[name]
    }
    assert moved == {'motte_isolation_failures_total{line="cgroup_pids"}': 1}


@pytest.mark.core
def test_R19_a_flushed_chain_shows_in_the_report(
    daemon: Daemon, client: Client, backend: Backend, tmp_path: Path
) -> None:
    client.create(id="open", memory_mib=backend.memory_mib)
    chains = {line.split()[1] for line in daemon.vm_rules() if line.startswith("-N ")}
    assert len(chains) == 1
    with host.locked():  # so that it is not repaired at once
        flush = ("ip6tables-legacy", "-t", "security", "-F", chains.pop())
        host.run(*flush, lock=str(tmp_path / "lock"))
        assert wrong_lines(report_of(client, "open")) == {"firewall_ipv6"}
    wait_until(lambda: report_of(client, "open")["ok"])


def test_R18_a_guard_left_out_shows_in_the_report(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(start(["--without=firewall"]))
    vm = client.create(memory_mib=backend.memory_mib)
    report = report_of(client, vm["id"])
    states = {line["name"]: line["state"] for line in report["lines"]}
    left_out = {name for name, state in states.items() if state == "not_applicable"}
    left_out = {name for name in left_out if not name.startswith("snapshot_")}  # it booted
    assert (report["ok"], left_out) == (True, {"firewall_ipv4", "firewall_ipv6"})
    client.delete(vm["id"])


def test_R22_only_a_running_vm_of_the_callers_has_a_report(
    client: Client, backend: Backend
) -> None:
    client.problem(404, "vm_not_found", "GET", "/vms/nobody/isolation")
    client.create(id="gone", memory_mib=backend.memory_mib)
    client.problem(400, "invalid_query", "GET", "/vms/gone/isolation?x=1")
    client.delete("gone")
    client.problem(404, "vm_gone", "GET", "/vms/gone/isolation")


@pytest.mark.core
def test_R05_every_line_of_the_report_has_its_counter(client: Client, backend: Backend) -> None:
    client.create(id="counted", memory_mib=backend.memory_mib)
    names = {line["name"] for line in report_of(client, "counted")["lines"]}
    _, samples = scrape(client)
    for name in names | {"other"}:
        assert f'motte_isolation_failures_total{{line="{name}"}}' in samples
    assert total(samples, "motte_isolation_failures_total", line="other") == 0


def test_R26_a_vm_whose_limit_was_loosened_is_not_adopted(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The check that a VM must pass before it is used counts what it finds, too."""
    daemon = start()
    client = connect(daemon)
    for vm_id in ("loose", "tight"):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    loose = client.get("loose")["instance"]
    daemon.stop()
    for folder in host.cgroups_named(daemon.cgroup):
        limit = Path(folder) / "pids.max"
        if folder.endswith(loose) and limit.exists():
            limit.write_text("max", encoding="utf-8")
    client = connect(daemon.start())
    _, samples = scrape(client)
    assert total(samples, "motte_isolation_failures_total") == 1
    assert total(samples, "motte_isolation_failures_total", line="cgroup_pids") == 1
    client.problem(404, "vm_gone", "GET", "/vms/loose")
    assert report_of(client, "tight")["ok"]
    client.delete("tight")
