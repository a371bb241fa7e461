"""Create, run, delete; and what is left on the host afterwards."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from harness import host
from harness.backend import Backend, guest_dir
from harness.client import Client
from harness.daemon import Daemon

MANY = 10


@pytest.mark.core
def test_R01_create_exec_delete(client: Client, backend: Backend) -> None:
    vm = client.create(id="first", labels={"team": "a"}, memory_mib=backend.memory_mib)
    assert (vm["id"], vm["state"], vm["labels"]) == ("first", "running", {"team": "a"})
    assert vm["isolation"] == ("emulated" if backend.emulated else "kvm")
    assert vm["without"] == []
    done = client.exec("first", ["/bin/echo", "hello", "world"])
    assert (done.code, done.signal, done.out, done.err) == (0, None, "hello world\n", "")
    client.delete("first")
    client.problem(404, "vm_gone", "GET", "/vms/first")
    client.delete("first")


def test_R01_an_id_is_free_at_once_after_delete(client: Client, backend: Backend) -> None:
    instances = set()
    for _ in range(3):
        vm = client.create(id="again", memory_mib=backend.memory_mib)
        instances.add(vm["instance"])
        client.delete("again")
    assert len(instances) == 3


def test_R09_an_id_in_use_is_refused(client: Client, backend: Backend) -> None:
    first = client.create(id="taken", memory_mib=backend.memory_mib)
    client.problem(409, "id_taken", "POST", "/vms", json={"id": "taken"})
    assert client.get("taken")["instance"] == first["instance"]
    assert client.exec("taken", ["/bin/echo", "mine"]).out == "mine\n"


def traces(daemon: Daemon) -> dict[str, object]:
    """Everything on the host that a VM could leave; SQLite's own files come and go."""
    return {
        "rules": daemon.rules(),
        "processes": daemon.vmms(),
        "cgroups": host.cgroups_named(daemon.cgroup),
        "mounts": host.mounts_below(daemon.home),
        "run": host.files_below(daemon.run_dir),
        "state": [
            name
            for name in host.files_below(daemon.state_dir)
            if name not in ("front/motte.db-wal", "front/motte.db-shm")
        ],
    }


def one_life(
    client: Client, vm_id: str, memory_mib: int, together: threading.Barrier
) -> tuple[str, set[str]]:
    """What it echoed, and the namespaces it had."""
    try:
        client.create(id=vm_id, memory_mib=memory_mib)
        together.wait(timeout=600)  # all ten are alive at this moment
        out = client.exec(vm_id, ["/bin/echo", vm_id]).out
        lines = client.expect(200, "GET", f"/vms/{vm_id}/isolation").json()["lines"]
        namespaces = {
            f"{line['name'].removeprefix('namespace_')}:[{line['value']}]"
            for line in lines
            if line["name"].startswith("namespace_")
        }
        assert namespaces <= host.namespaces_alive(), "the oracle sees them while they are there"
        together.wait(timeout=600)
    except BaseException:
        together.abort()
        raise
    client.delete(vm_id)
    return out, namespaces


def test_R20_R04_ten_at_once_leave_the_host_as_it_was(
    daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    before = traces(daemon)
    ids = [f"many-{number}" for number in range(MANY)]
    together = threading.Barrier(MANY)
    with ThreadPoolExecutor(MANY) as pool:
        lives = list(
            pool.map(
                lambda vm_id: one_life(connect(daemon), vm_id, backend.memory_mib, together), ids
            )
        )
    assert [out for out, _ in lives] == [f"{vm_id}\n" for vm_id in ids]
    assert traces(daemon) == before
    namespaces = set().union(*(of_one for _, of_one in lives))
    assert len(namespaces) == 5 * MANY, "net, mnt, pid, ipc and uts of its own for each"
    held = host.namespaces_alive(within=(daemon.pid, daemon.front_pid))
    assert not namespaces & held, "nothing of ours keeps one alive"
    daemon.assert_no_leftovers()


@pytest.mark.core
def test_R20_while_vms_run_their_traces_are_there_to_be_found(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """The oracle of the test above sees what it must see."""
    client.create(id="seen", memory_mib=backend.memory_mib)
    assert daemon.vm_rules() != []
    assert host.cgroups_named(daemon.cgroup) != []
    assert len(daemon.vmms()) >= 1
    assert daemon.leftovers()["running"] == 1
    daemon.assert_no_leftovers()


def test_R04_delete_works_in_every_state(
    daemon: Daemon, client: Client, connect: Callable[..., Client], backend: Backend
) -> None:
    """While creating: test_R04_delete_while_creating_leaves_nothing."""
    client.create(id="running", memory_mib=backend.memory_mib)
    clients = [connect(daemon) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:  # all but one of them come while it is `deleting`
        list(pool.map(lambda one: one.delete("running"), clients))
    client.delete("running")
    client.create(id="exited", memory_mib=backend.memory_mib, ttl_s=1)
    client.wait_gone("exited")
    client.delete("exited")
    client.problem(404, "vm_not_found", "DELETE", "/vms/never")
    assert client.list() == []


def test_R02_a_vm_ends_when_its_time_is_up(client: Client, backend: Backend) -> None:
    client.create(id="brief", memory_mib=backend.memory_mib, ttl_s=1)
    assert "ttl" in client.wait_gone("brief")["detail"]


def test_R09_a_vm_has_an_hour_unless_told(client: Client, backend: Backend) -> None:
    def life(vm: dict[str, str]) -> float:
        created, expires = (datetime.fromisoformat(vm[f"{w}_at"]) for w in ("created", "expires"))
        return (expires - created).total_seconds()

    vm = client.create(id="hour", memory_mib=backend.memory_mib)
    assert vm["ttl_s"] == 3600
    assert 3600 <= life(vm) < 3600 + 120, "it counts from when the VM runs"
    assert 60 <= life(client.create(memory_mib=backend.memory_mib, ttl_s=60)) < 60 + 120


@pytest.mark.linux
def test_R21_a_scratch_disk_takes_what_the_guest_writes(client: Client, backend: Backend) -> None:
    vm = client.create(id="disk", memory_mib=backend.memory_mib, disk_mib=512)
    assert vm["disk_mib"] == 512
    taken = client.expect(200, "GET", "/vms/disk/stats").json()["disk_bytes"]
    script = "dd if=/dev/zero of=/root/big bs=1M count=300 2>&1 && stat -c %s /root/big"
    done = client.exec("disk", ["/bin/sh", "-c", script], timeout_ms=240000)
    assert done.out.splitlines()[-1] == str(300 << 20), "more than the VM has memory"
    now = client.expect(200, "GET", "/vms/disk/stats").json()["disk_bytes"]
    assert taken + (100 << 20) < now < 600 << 20, "what the guest holds back is not there yet"


@pytest.mark.testguest
def test_R21_a_scratch_disk_needs_an_image_that_knows_one(client: Client) -> None:
    body = client.problem(400, "invalid_value", "POST", "/vms", json={"disk_mib": 64})
    assert "disk_mib" in body["detail"]


@pytest.mark.linux
def test_R04_a_guest_that_is_not_up_in_time_leaves_nothing(
    start: Callable[..., Daemon], connect: Callable[..., Client]
) -> None:
    daemon = start(["--boot-timeout-ms=100"])
    client = connect(daemon)
    client.problem(504, "boot_timeout", "POST", "/vms", json={"id": "slow"})
    assert client.list() == []
    client.problem(404, "vm_gone", "GET", "/vms/slow")
    assert daemon.vm_rules() == []
    assert daemon.vmms() == {}
    daemon.assert_no_leftovers()


@pytest.mark.linux
@pytest.mark.emulated
def test_R04_a_guest_without_a_clock_is_not_taken_for_a_running_one(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """The kernel argument does what a starved boot does: no timer is left."""
    daemon = start(["--boot-timeout-ms=25000"])
    kernel = daemon.home / "clockless"
    shutil.copytree(guest_dir() / "kernel", kernel)
    (kernel / "boot_args").unlink()
    (kernel / "boot_args").write_text("lsm=landlock audit=0 nolapic_timer", encoding="utf-8")
    disk = daemon.home / "clockless.sqfs"
    disk.write_bytes(daemon.disk.read_bytes() + bytes(4096))  # another digest, the same files
    for words in (
        ["kernel", "add", str(kernel), "--name", "clockless"],
        ["image", "add", str(disk), "--name", "clockless", "--kernel", "clockless"],
    ):
        done = daemon.admin(*words)
        assert done.returncode == 0, done.stderr
    client = connect(daemon)
    body = {"id": "still", "image": "clockless", "memory_mib": backend.memory_mib}
    client.problem(504, "boot_timeout", "POST", "/vms", json=body)
    daemon.assert_no_leftovers()


def test_R04_a_guest_that_ends_by_itself_is_cleaned_up_with_a_reason(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="ends", memory_mib=backend.memory_mib)
    response = client.request(
        "POST", "/vms/ends/exec", json={"argv": backend.end_itself(), "timeout_ms": 20000}
    )
    assert response.status_code in (404, 409, 502, 504), response.text
    gone = client.wait_gone("ends")
    assert gone["detail"]
    daemon.assert_no_leftovers()
