"""Create, run, delete; and what is left on the host afterwards."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import host
from harness.backend import Backend
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


def one_life(client: Client, vm_id: str, memory_mib: int, together: threading.Barrier) -> str:
    try:
        client.create(id=vm_id, memory_mib=memory_mib)
        together.wait(timeout=600)  # all ten are alive at this moment
        out = client.exec(vm_id, ["/bin/echo", vm_id]).out
        together.wait(timeout=600)
    except BaseException:
        together.abort()
        raise
    client.delete(vm_id)
    return out


def test_R20_R04_ten_at_once_leave_the_host_as_it_was(
    daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    before = (
        host.firewall(),
        host.cgroups_named(daemon.cgroup),
        host.mounts_below(daemon.home),
        host.files_below(daemon.run_dir),
        [name for name in host.files_below(daemon.state_dir) if not name.startswith("front/")],
        host.namespaces_held(daemon.pid) + host.namespaces_held(daemon.front_pid),
    )
    ids = [f"many-{number}" for number in range(MANY)]
    together = threading.Barrier(MANY)
    with ThreadPoolExecutor(MANY) as pool:
        outputs = list(
            pool.map(
                lambda vm_id: one_life(connect(daemon), vm_id, backend.memory_mib, together), ids
            )
        )
    assert outputs == [f"{vm_id}\n" for vm_id in ids]
    after = (
        host.firewall(),
        host.cgroups_named(daemon.cgroup),
        host.mounts_below(daemon.home),
        host.files_below(daemon.run_dir),
        [name for name in host.files_below(daemon.state_dir) if not name.startswith("front/")],
        host.namespaces_held(daemon.pid) + host.namespaces_held(daemon.front_pid),
    )
    assert after == before
    assert daemon.vmms() == {}
    daemon.assert_no_leftovers()


@pytest.mark.core
def test_R20_while_vms_run_their_traces_are_there_to_be_found(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """The oracle of the test above sees what it must see."""
    client.create(id="seen", memory_mib=backend.memory_mib)
    assert host.vm_rules() != []
    assert host.cgroups_named(daemon.cgroup) != []
    assert len(daemon.vmms()) >= 1
    assert daemon.leftovers()["running"] == 1
    daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R04_a_guest_that_is_not_up_in_time_leaves_nothing(
    start: Callable[..., Daemon], connect: Callable[..., Client]
) -> None:
    daemon = start(["--boot-timeout-ms=100"])
    client = connect(daemon)
    client.problem(504, "boot_timeout", "POST", "/vms", json={"id": "slow"})
    assert client.list() == []
    client.problem(404, "vm_gone", "GET", "/vms/slow")
    assert host.vm_rules() == []
    assert daemon.vmms() == {}
    daemon.assert_no_leftovers()


def test_R04_a_guest_that_ends_by_itself_is_cleaned_up_with_a_reason(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    client.create(id="ends", memory_mib=backend.memory_mib)
    response = client.request(
        "POST", "/vms/ends/exec", json={"argv": backend.end_itself(), "timeout_ms": 20000}
    )
    assert response.status_code in (404, 409, 502, 504), response.text
    gone = wait_gone(client, "ends")
    assert gone["detail"]
    daemon.assert_no_leftovers()


def wait_gone(client: Client, vm_id: str) -> dict[str, str]:
    """Until the daemon has seen the end: asks, since HTTP offers no event for it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        response = client.request("GET", f"/vms/{vm_id}")
        if response.status_code == 404:
            body: dict[str, str] = response.json()
            return body
        time.sleep(0.02)
    raise TimeoutError(f"{vm_id} is still there")
