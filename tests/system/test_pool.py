"""The warm pool: VMs that wait, booted and checked; who asks for such a one has it at once."""

import os
import select
import signal
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client, Refused
from harness.daemon import Daemon
from harness.kills import kill_front, kill_root
from harness.metrics import scrape, total
from harness.waiting import wait_until
from test_pause import later, wait_a_while
from test_tcp import ADMIN, ALICE, BOB, bearer, free_port, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower


def pool(backend: Backend, **keys: int | str) -> str:
    words = [f"{key.replace('_', '-')}={value}" for key, value in keys.items()]
    return ",".join([backend.image, f"memory-mib={backend.memory_mib}", *words])


def waiting(client: Client, family: str = "motte_pool_vms", **labels: str) -> int:
    return int(total(scrape(client)[1], family, **labels))


def wait_full(client: Client, number: int, **labels: str) -> None:
    """So many wait, and no more are to."""
    wait_until(
        lambda: (
            waiting(client, **labels) == number
            and waiting(client, "motte_pool_target", **labels) == number
        ),
        what=f"{waiting(client, **labels)} wait, not {number}",
    )


def pooled(daemon: Daemon) -> list[str]:
    """Instances of rows of the pool's that run."""
    uri = f"file:{daemon.state_dir}/front/motte.db?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    rows = connection.execute(
        "SELECT instance FROM vms WHERE purpose = 1 AND state = 2 ORDER BY seq"
    )
    found = [row[0] for row in rows]
    connection.close()
    return found


def empty(daemon: Daemon, client: Client) -> None:
    """Nothing is left, once the pool has ended what waits and callers what is theirs."""
    client.expect(200, "POST", "/admin/cordon")
    for vm in client.list(limit=500):
        client.delete(vm["id"])
    wait_until(lambda: pooled(daemon) == [] and daemon.rows() == 0, what="the pool is not empty")
    daemon.assert_no_leftovers()
    assert daemon.vmms() == {}
    assert daemon.vm_rules() == []
    client.expect(204, "DELETE", "/admin/cordon")


@pytest.fixture
def started(start: Callable[..., Daemon], backend: Backend) -> Daemon:
    return start([f"--pool={pool(backend, min=2, max=4)}"])


@pytest.fixture
def root(started: Daemon, connect: Callable[..., Client]) -> Iterator[Client]:
    client = connect(started)
    wait_full(client, 2)
    yield client
    empty(started, client)


def test_R02_R20_who_asks_has_one_that_waited(
    started: Daemon, root: Client, backend: Backend
) -> None:
    first = pooled(started)[0]
    vmms = set(started.vmms())
    vm = root.create(id="mine", memory_mib=backend.memory_mib, ttl_s=600, labels={"job": "7"})
    assert (vm["source"], vm["instance"], vm["snapshot"]) == ("pool", first, None)
    assert (vm["owner"], vm["ttl_s"], vm["labels"]) == ("root", 600, {"job": "7"})
    assert set(started.vmms()) >= vmms, "no VMM ended, and this one is not new"
    assert root.exec("mine", ["echo", "at once"]).out == "at once\n"
    assert root.get("mine") == vm
    report = root.expect(200, "GET", "/vms/mine/isolation").json()
    assert (report["ok"], report["instance"]) == (True, first)
    entries = root.expect(200, "GET", "/vms/mine/audit").json()["entries"]
    kinds = [entry["kind"] for entry in entries]
    assert kinds == ["created", "guards_checked", "running", "claimed"]
    assert [entry["owner"] for entry in entries] == [":motte"] * 3 + ["root"]
    assert waiting(root, "motte_pool_claims_total", result="hit") == 1
    root.pause("mine")
    root.resume("mine")
    forks = root.expect(201, "POST", "/vms/mine/fork", json={"count": 2}).json()["vms"]
    assert [fork["source"] for fork in forks] == ["snapshot"] * 2
    assert root.exec(forks[1]["id"], ["echo", "fork"]).out == "fork\n"
    root.delete("mine")
    with pytest.raises(LookupError):
        started.vmm_of(first)
    assert "deleted" in root.problem(404, "vm_gone", "GET", "/vms/mine")["detail"]


def test_R05_nobody_sees_or_touches_what_waits(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    tmp_path: Path,
) -> None:
    port = free_port()
    options = [f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"]
    daemon = start([*options, f"--pool={pool(backend, min=1)}"])
    root = connect(daemon)
    wait_full(root, 1)
    instance = pooled(daemon)[0]
    for token in (ADMIN, ALICE, None):
        client = connect(f"http://127.0.0.1:{port}", bearer(token)) if token else root
        assert client.list() == []
        for method, path, body in (
            ("GET", "", None),
            ("DELETE", "", None),
            ("GET", "/isolation", None),
            ("GET", "/audit", None),
            ("POST", "/exec", {"argv": ["true"]}),
            ("POST", "/pause", None),
            ("POST", "/keepalive", {}),
            ("POST", "/snapshots", {}),
            ("POST", "/fork", {}),
        ):
            json = {} if body is None else {"json": body}
            client.problem(404, "vm_not_found", method, f"/vms/{instance}{path}", **json)
    assert pooled(daemon) == [instance]
    assert waiting(root, "motte_vms") == 0
    alice = connect(f"http://127.0.0.1:{port}", bearer(ALICE))
    bob = connect(f"http://127.0.0.1:{port}", bearer(BOB))
    assert alice.create(id="a", memory_mib=backend.memory_mib)["instance"] == instance
    bob.problem(404, "vm_not_found", "GET", "/vms/a")
    assert bob.list() == []
    assert [vm["id"] for vm in alice.list()] == ["a"]
    empty(daemon, root)


def test_R20_what_does_not_fit_is_made_as_ever(
    started: Daemon, root: Client, backend: Backend
) -> None:
    fits = {"memory_mib": backend.memory_mib}
    before = pooled(started)
    for spec in (
        {"memory_mib": backend.memory_mib + 2},
        fits | {"vcpus": 2},
        fits | {"seccomp": "basic"},
        fits | {"cold": True},
    ):
        vm = root.create(**spec)
        assert vm["source"] == "boot", spec
        root.delete(vm["id"])
    root.create(id="taken", cold=True, **fits)
    root.problem(409, "id_taken", "POST", "/vms", json=fits | {"id": "taken"})
    assert pooled(started) == before
    prefer = {"Prefer": "respond-async"}
    answer = root.expect(201, "POST", "/vms", json=fits, headers=prefer)
    assert (answer.json()["source"], answer.json()["state"]) == ("pool", "running")
    answer = root.expect(202, "POST", "/vms", json=fits | {"cold": True}, headers=prefer)
    root.wait_state(answer.json()["id"], "running")


def test_R20_it_grows_with_what_is_asked_for_and_no_further(
    started: Daemon, root: Client, backend: Backend
) -> None:
    for number in range(3):
        root.create(id=f"vm-{number}", memory_mib=backend.memory_mib)
        wait_full(root, min(3 + number, 4))
    assert len(pooled(started)) == 4
    assert waiting(root, "motte_pool_refills_total") == 7
    assert waiting(root, "motte_pool_refill_failures_total") == 0


def test_R02_R20_each_goes_to_one_of_many_who_ask_at_once(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start([f"--pool={pool(backend, min=8, max=8)}"])
    clients = [connect(daemon) for _ in range(8)]
    wait_full(clients[0], 8)
    before = set(pooled(daemon))
    with ThreadPoolExecutor(8) as many:
        made = list(many.map(lambda c: c.create(memory_mib=backend.memory_mib), clients))
    assert {vm["source"] for vm in made} == {"pool"}
    assert {vm["instance"] for vm in made} == before
    for client, vm in zip(clients, made, strict=True):
        assert client.exec(vm["id"], ["echo", vm["id"]]).out == vm["id"] + "\n"
    empty(daemon, clients[0])


def test_R20_a_claim_takes_no_time(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start([f"--pool={pool(backend, min=24, max=24)}"])
    client = connect(daemon)
    wait_full(client, 24)

    def median_s(source: str, count: int, **wish: Any) -> float:
        took = []
        for number in range(count):
            began = time.perf_counter()
            vm = client.create(id=f"{source}-{number}", memory_mib=backend.memory_mib, **wish)
            took.append(time.perf_counter() - began)
            assert vm["source"] == source
        return statistics.median(took)

    claims_s, boots_s = median_s("pool", 20), median_s("boot", 5, cold=True)
    print(f"p50 of claims {claims_s * 1e3:.2f} ms, of boots {boots_s * 1e3:.2f} ms")
    assert claims_s < boots_s / 2
    empty(daemon, client)


@pytest.mark.parametrize("limit", ["max-vms", "memory"])
def test_R20_a_callers_vm_comes_before_those_that_wait(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, limit: str
) -> None:
    if limit == "max-vms":
        daemon = start(["--max-vms=3", f"--pool={pool(backend, min=3)}"])
        more = backend.memory_mib + 2
    else:
        daemon = start([f"--pool={pool(backend, min=3)}"])
        limits = connect(daemon).expect(200, "GET", "/capabilities").json()["limits"]
        more = limits["total_memory_mib"] - 2 * backend.memory_mib
    client = connect(daemon)
    wait_full(client, 3)
    vm = client.create(id="big", memory_mib=more)
    assert vm["source"] == "boot"
    assert client.exec("big", ["echo", "here"]).out == "here\n"
    assert waiting(client, "motte_pool_drained_total") == 1
    assert len(pooled(daemon)) == 2
    wait_until(
        lambda: waiting(client, "motte_pool_refill_failures_total") >= 1, what="it was not tried"
    )
    assert client.get("big")["state"] == "running"
    client.delete("big")
    wait_full(client, 3)
    empty(daemon, client)


def test_R02_a_cordon_empties_the_pool_and_its_end_fills_it(
    started: Daemon, root: Client, backend: Backend
) -> None:
    root.create(id="stays", memory_mib=backend.memory_mib)
    root.expect(200, "POST", "/admin/cordon")
    wait_until(lambda: pooled(started) == [], what="they wait under a cordon")
    wait_until(lambda: len(started.vmms()) == 1, what="they go on under a cordon")
    root.problem(503, "cordoned", "POST", "/vms", json={"memory_mib": backend.memory_mib})
    assert waiting(root, "motte_pool_target") == 0
    assert root.exec("stays", ["echo", "on"]).out == "on\n"
    root.expect(204, "DELETE", "/admin/cordon")
    wait_full(root, 3)


def test_R02_a_restart_adopts_what_waits(
    started: Daemon, root: Client, backend: Backend, connect: Callable[..., Client]
) -> None:
    before, vmms = pooled(started), started.vmms()
    started.stop()
    started.start()
    client = connect(started)
    wait_full(client, 2)
    assert (pooled(started), started.vmms()) == (before, vmms)
    assert client.create(memory_mib=backend.memory_mib)["instance"] == before[0]


def test_R02_what_waits_goes_with_its_option(
    started: Daemon, root: Client, backend: Backend, connect: Callable[..., Client]
) -> None:
    root.create(id="mine", memory_mib=backend.memory_mib)
    wait_full(root, 3)
    options, started.options = started.options, []
    started.stop()
    started.start()
    client = connect(started)
    wait_until(lambda: pooled(started) == [], what="they wait for nothing")
    assert client.exec("mine", ["echo", "on"]).out == "on\n"
    assert "motte_pool_vms{" not in scrape(client)[0]
    started.options = options


def kill_vmm(pid: int) -> None:
    """Returns when it has ended, which nobody may have noticed yet."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0], "it lives on"
    os.close(pidfd)


def test_R02_an_ended_vmm_is_not_handed_out(
    started: Daemon, root: Client, backend: Backend
) -> None:
    """Killed the moment before: the monitor may or may not have seen it."""
    for _ in range(4):
        wait_until(
            lambda: started.rows() == len(started.vmms()) and len(pooled(started)) >= 2,
            what="too few wait",
        )
        for pid in started.vmms():
            kill_vmm(pid)
        vm = root.create(memory_mib=backend.memory_mib)
        assert root.exec(vm["id"], ["echo", "lives"]).out == "lives\n"
        root.delete(vm["id"])


def claim_until_it_dies(client: Client, name: str, backend: Backend) -> Future[None]:
    def claim() -> None:
        for number in range(1000):
            try:
                client.create(id=f"{name}-{number}", memory_mib=backend.memory_mib)
                client.delete(f"{name}-{number}")
            except (httpx.HTTPError, Refused):
                return

    return later(claim)


def test_R02_R20_a_kill_while_the_pool_is_filled_and_claimed_from(
    started: Daemon, root: Client, connect: Callable[..., Client], backend: Backend
) -> None:
    """At any moment: each VM is the pool's or a caller's, and works; there are no others."""

    client = root
    for turn in range(10):
        claims = [
            claim_until_it_dies(connect(started), f"vm-{turn}-{n}", backend) for n in range(2)
        ]
        wait_a_while(turn * 0.011)
        front = started.open_front()
        (kill_front if turn % 2 else kill_root)(started)
        started.wait_ended(front)
        for claim in claims:
            claim.result(timeout=30)
        started.start()
        client = connect(started)
        for vm in client.list(limit=500):
            assert client.exec(vm["id"], ["echo", "on"]).out == "on\n"
            client.delete(vm["id"])
        wait_until(lambda: started.rows() == len(started.vmms()), what="rows and VMMs differ")
        assert client.create(memory_mib=backend.memory_mib)["state"] == "running"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,max=2", "min is missing"),
        ("image,min=1,colour=red", "none of vcpus"),
    ],
)
def test_R02_a_pool_that_makes_no_sense_is_refused_at_start(
    start: Callable[..., Daemon], text: str, says: str
) -> None:
    daemon = start([f"--pool={text}"], running=False)
    daemon.spawn()
    daemon.wait_ended()
    assert says in daemon.log


def test_R02_a_reload_changes_what_waits(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start(running=False)
    file = daemon.home / "motted.conf"
    daemon.options = [f"--config={file}"]

    def write(*pools: str) -> None:
        file.write_text("".join(f"pool = {text}\n" for text in pools))

    def reload(says: str) -> None:
        before = daemon.log.count(says)
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: daemon.log.count(says) > before, what=daemon.log[-500:])

    write(pool(backend, min=1))
    daemon.start()
    client = connect(daemon)
    wait_full(client, 1)
    first = pooled(daemon)
    write(pool(backend, min=2), pool(backend, min=1, vcpus=2))
    reload("reloaded: pool")
    wait_full(client, 2, vcpus="1")
    wait_full(client, 1, vcpus="2")
    assert set(first) < set(pooled(daemon)), "it waits on"
    assert client.create(memory_mib=backend.memory_mib, vcpus=2)["source"] == "pool"
    write(pool(backend, min=1, vcpus=2), "nonsense")
    reload("reload refused, all stays as it was: pool: `nonsense`: min is missing")
    assert waiting(client, vcpus="1") == 2
    write()
    reload("reloaded: pool")
    wait_until(lambda: pooled(daemon) == [], what="they wait on")
    assert client.create(memory_mib=backend.memory_mib)["source"] == "boot"
    empty(daemon, client)


def test_R02_an_image_that_was_replaced_is_made_anew(
    started: Daemon, root: Client, backend: Backend
) -> None:
    before = pooled(started)
    disk = started.home / "disk"
    disk.write_bytes(os.urandom(1 << 20))
    name = ("--name", backend.image, "--kernel", backend.kernel)
    assert started.admin("image", "remove", backend.image).returncode == 0
    assert started.admin("image", "add", str(disk), "--raw", *name).returncode == 0
    vm = root.create(memory_mib=backend.memory_mib)
    assert (vm["source"], vm["instance"] in before) == ("boot", False)
    wait_until(lambda: not set(before) & set(pooled(started)), what="the old ones wait on")
    wait_full(root, 3)
    fresh = root.create(memory_mib=backend.memory_mib)
    assert (fresh["source"], fresh["image_digest"]) == ("pool", vm["image_digest"])


def test_R02_what_waits_goes_with_its_kernel(
    started: Daemon, root: Client, backend: Backend
) -> None:
    before = pooled(started)
    kernel = started.home / "kernel"
    (kernel / "boot_args").write_text("another=word", encoding="utf-8")
    words = ("kernel", "add", str(kernel), "--name", backend.kernel, "--replace")
    assert started.admin(*words).returncode == 0
    vm = root.create(memory_mib=backend.memory_mib)
    assert (vm["source"], vm["instance"] in before) == ("boot", False)
    wait_until(lambda: not set(before) & set(pooled(started)), what="the old ones wait on")
    wait_full(root, 3)
    assert root.create(memory_mib=backend.memory_mib)["source"] == "pool"


def test_R02_an_unknown_image_is_told_and_used_when_it_comes(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start([f"--pool=later,min=1,memory-mib={backend.memory_mib}"])
    client = connect(daemon)
    wait_until(
        lambda: waiting(client, "motte_pool_refill_failures_total", image="later") >= 1,
        what="nobody tells of it",
    )
    assert "later" in daemon.log
    assert client.create(memory_mib=backend.memory_mib)["source"] == "boot"
    disk = daemon.home / "disk"
    kernel = ("--kernel", backend.kernel)
    assert (
        daemon.admin("image", "add", str(disk), "--raw", "--name", "later", *kernel).returncode == 0
    )
    wait_full(client, 1, image="later")
    assert client.create(image="later", memory_mib=backend.memory_mib)["source"] == "pool"
    empty(daemon, client)
