"""kill -9 before and after every call by which a spawn, a pause, a delete or a recovery changes
something.

Which calls there are is not written down here: a run under the tracer records them, so a new step
is a new point by itself. After each kill motted is started again, and then a VM that ran meanwhile
still runs as the same process and answers, the one that was being made or deleted is there whole
or not at all, and nothing is left that belongs to neither."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness import host, vmm
from harness.backend import Backend
from harness.client import Client, Refused
from harness.contract import Contract
from harness.metrics import scrape, total
from harness.traced import Point, TracedDaemon, Tracer
from harness.waiting import wait_until

pytestmark = [pytest.mark.testguest, pytest.mark.timeout(1500)]

STAYS, COMES, GOES = "stays", "comes", "goes"
TRIES = 3  # of a point that does not come again
RARE = 2  # such points at most
COPYING = 2  # writes of a copy at which it is killed
SOON_S = 5.0  # after a start that was not killed on its way


class Matrix:
    """One daemon, restarted for each point, and a VM that has to outlive all of it."""

    def __init__(self, backend: Backend, contract: Contract) -> None:
        self.daemon = TracedDaemon(backend)
        self.contract = contract
        self.memory = backend.memory_mib
        self.existing = 0  # points to kill at, and those where it was done and survived
        self.tested = 0
        self.missed: list[str] = []
        self.found: Counter[str] = Counter()  # states of the other VM after a kill
        self.only: set[str] | None = None  # VMs that may be there, if not all
        self.daemon.start_plain()
        with self.client() as client:
            self.instance = client.create(id=STAYS, memory_mib=self.memory)["instance"]
        (self.pid,) = self.daemon.vmms()

    def client(self) -> "Connection":
        return Connection(self.contract, str(self.daemon.socket_path))

    def tracer(self) -> Tracer:
        assert self.daemon.tracer is not None
        return self.daemon.tracer

    def check(self, killed_at: str) -> None:
        """On a daemon that has just recovered, and without those of its own that it had before."""
        if self.daemon.traced_options:
            wait_until(self.own_are_gone, what=f"{killed_at}: VMs that nobody knows of")
        with self.client() as client:
            assert client.exec(STAYS, ["echo", "still here"]).out.strip() == "still here", killed_at
            there = client.list()
            assert self.only is None or {vm["id"] for vm in there} <= self.only, killed_at
            for vm in there:
                if vm["id"] != STAYS:
                    self.check_other(client, vm, killed_at)
                    client.delete(vm["id"])
        running = self.daemon.vmms()
        assert list(running) == [self.pid], f"{killed_at}: {[host.status_of(p) for p in running]}"
        try:
            self.daemon.assert_no_leftovers()
        except AssertionError as left:
            raise AssertionError(f"{killed_at}: {left}") from left
        groups = {Path(path).name for path in host.cgroups_named(self.daemon.cgroup)}
        assert groups == {self.instance}, killed_at

    def own_are_gone(self) -> bool:
        with self.client() as client:
            return len(self.daemon.vmms()) == len(client.list(limit=500)) == self.daemon.rows()

    def check_other(self, client: Client, vm: dict[str, Any], killed_at: str) -> None:
        """It runs, or is paused and says so, and goes on."""
        path = f"/vms/{vm['id']}/exec"
        answer = client.request("POST", path, json={"argv": ["true"]})
        frozen = vmm.is_paused(self.daemon.backend, self.daemon.vmm_of(vm["instance"]))
        assert answer.status_code == (409 if frozen else 200), f"{killed_at}: {answer.text}"
        now = client.get(vm["id"])
        assert now["state"] == ("paused" if frozen else "running"), f"{killed_at}: {now}"
        self.found[now["state"]] += 1
        client.resume(vm["id"])
        assert client.exec(vm["id"], ["true"]).code == 0, killed_at

    def survived(self, killed_at: str) -> None:
        self.daemon.start_plain()
        self.check(killed_at)
        self.tested += 1

    def record(
        self, scenario: Callable[[Client], None], prepare: Callable[[Client], None]
    ) -> list[Point]:
        self.daemon.stop()
        tracer = self.daemon.start_under("record")
        with self.client() as client:
            prepare(client)
            settle(client)
            tracer.arm()
            scenario(client)
        points = tracer.points()
        self.daemon.stop()
        self.daemon.start_plain()
        self.check("recording")
        return points

    def kill_at(
        self,
        mode: str,
        point: Point,
        scenario: Callable[[Client], None],
        prepare: Callable[[Client], None],
    ) -> None:
        """Leaves no daemon behind."""
        self.daemon.stop()
        tracer = self.daemon.start_under(mode, point)
        front = self.daemon.open_front()
        with self.client() as client:
            prepare(client)
            settle(client)
            tracer.arm()
            with contextlib.suppress(httpx.TransportError, Refused):  # it is killed under us
                scenario(client)
        tracer.wait("killed")
        self.daemon.wait_ended(front)


class Connection:
    """A client for a `with` block: the daemon behind it may be killed."""

    def __init__(self, contract: Contract, address: str) -> None:
        self.client = Client(contract, address)

    def __enter__(self) -> Client:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()


@pytest.fixture
def matrix(
    backend: Backend, contract: Contract, start: object, record_property: Callable[..., None]
) -> Iterator[Matrix]:
    """`start` sees to it that the shared daemon stands still meanwhile."""
    made = Matrix(backend, contract)
    try:
        yield made
    finally:
        made.daemon.close()
        record_property("counted: kill points", made.existing)
        record_property("counted: kill points survived", made.tested)


def nothing(_: Client) -> None:
    pass


def settle(client: Client) -> None:
    """The calls so far are in their audit, which else is written whenever it comes to it."""
    client.expect(200, "GET", "/audit", params={"limit": 1})


def wait_filled(client: Client) -> None:
    wait_until(lambda: total(scrape(client)[1], "motte_pool_vms") == 1, what="no pooled VM")


def create(name: str, backend: Backend) -> Callable[[Client], None]:
    def run(client: Client) -> None:
        client.create(id=name, memory_mib=backend.memory_mib)

    return run


def delete(client: Client) -> None:
    client.delete(GOES)


def goes_on(point: Point) -> bool:
    """One more write of a copy: how many there are is for the guest's memory to say."""
    return point.nth > COPYING and bool(re.search(r" pwrite64 \.ID/", point.name))


def sweep(
    matrix: Matrix,
    scenario: Callable[[Client], None],
    prepare: Callable[[Client], None],
    modes: Sequence[str] = ("before", "after+"),
    known: Callable[[Point], bool] = lambda _: False,
) -> list[Point]:
    found = matrix.record(scenario, prepare)
    points = [point for point in found if not goes_on(point) and not known(point)]
    for mode in modes:
        for point in points:
            matrix.existing += 1
            matrix.kill_at(mode, point, scenario, prepare)
            matrix.survived(f"{mode} {point}")
    return points


def sweep_recovery(
    matrix: Matrix,
    half_done: Point,
    scenario: Callable[[Client], None],
    prepare: Callable[[Client], None],
) -> list[Point]:
    """Each time something is left half done first; the daemon that recovers it is killed too. After
    each point only: that is before the next one."""
    matrix.kill_at("before+", half_done, scenario, prepare)
    points = matrix.daemon.start_under("record-all").points()
    matrix.check("recording")
    for point in points:
        matrix.existing += 1
        if any(kill_recovery(matrix, half_done, point, scenario, prepare) for _ in range(TRIES)):
            matrix.survived(f"recovery, after {point}")
        else:
            matrix.missed.append(str(point))
    assert len(matrix.missed) <= RARE, matrix.missed
    return points


def kill_recovery(
    matrix: Matrix,
    half_done: Point,
    point: Point,
    scenario: Callable[[Client], None],
    prepare: Callable[[Client], None],
) -> bool:
    """False if the recovery came to its end without this point: what a thread does depends on which
    was first."""
    matrix.kill_at("before+", half_done, scenario, prepare)
    try:
        matrix.daemon.start_under("after-all", point)
    except RuntimeError:
        matrix.tracer().wait("killed")  # before it was ready
    else:
        try:
            matrix.tracer().wait("killed", SOON_S)
        except TimeoutError:
            return False
    matrix.daemon.wait_gone()
    return True


def roles(points: list[Point]) -> set[str]:
    return {point.name.split()[0] for point in points}


def test_R04_R02_R20_a_kill_at_any_point_of_a_spawn(matrix: Matrix, backend: Backend) -> None:
    points = sweep(matrix, create(COMES, backend), nothing)
    assert roles(points) == {"root", "front", "child"}
    assert len(points) > 60, [str(point) for point in points]


def test_R04_R02_R20_a_kill_at_any_point_of_a_delete(matrix: Matrix, backend: Backend) -> None:
    points = sweep(matrix, delete, create(GOES, backend))
    assert roles(points) == {"root", "front"}
    assert len(points) > 20, [str(point) for point in points]


def pause_and_resume(client: Client) -> None:
    client.pause(GOES)
    client.resume(GOES)


def test_R02_R20_a_kill_at_any_point_of_a_pause_and_a_resume(
    matrix: Matrix, backend: Backend
) -> None:
    """After each only: one thread makes these calls, so that is before the next one."""
    points = sweep(matrix, pause_and_resume, create(GOES, backend), ["after+"])
    assert roles(points) == {"front"}, "the root half has no part in it"
    assert min(matrix.found["paused"], matrix.found["running"]) > 0, matrix.found


def snapshot(client: Client) -> None:
    client.expect(201, "POST", f"/vms/{GOES}/snapshots", json={})


def fork(client: Client) -> None:
    client.expect(201, "POST", f"/vms/{GOES}/fork", json={})


def test_R02_R20_a_kill_at_any_point_of_a_snapshot(matrix: Matrix, backend: Backend) -> None:
    """The VM runs on whatever happens: check() asks for that."""
    points = sweep(matrix, snapshot, create(GOES, backend), ["after+"])
    assert roles(points) == {"root", "front", "child"}


def test_R04_R02_R20_a_kill_at_any_point_of_a_fork(matrix: Matrix, backend: Backend) -> None:
    points = sweep(matrix, fork, create(GOES, backend), ["after+"])
    assert roles(points) == {"root", "front", "child"}


def test_R04_R02_R20_a_kill_while_forks_are_undone(matrix: Matrix, backend: Backend) -> None:
    """There is room for one of two. What a fork that succeeds does too is killed elsewhere."""
    succeeds = Counter(point.name for point in matrix.record(fork, create(GOES, backend)))
    matrix.daemon.traced_options = ["--max-vms=3"]
    matrix.only = {STAYS, GOES}

    def fork_two(client: Client) -> None:
        path = f"/vms/{GOES}/fork"
        client.problem(503, "capacity_exhausted", "POST", path, json={"count": 2})

    points = sweep(
        matrix,
        fork_two,
        create(GOES, backend),
        ["after+"],
        lambda point: point.nth <= succeeds[point.name],
    )
    assert roles(points) >= {"root", "front"}


def test_R02_R20_a_kill_at_any_point_of_a_claim(matrix: Matrix, backend: Backend) -> None:
    """It waits in the pool still, and goes with it, or is the caller's. The host is full then."""
    pool = f"--pool={backend.image},memory-mib={backend.memory_mib},min=1,max=1"
    matrix.daemon.traced_options = [pool, "--max-vms=2"]

    def claim(client: Client) -> None:
        assert client.create(id=GOES, memory_mib=backend.memory_mib)["source"] == "pool"

    points = sweep(matrix, claim, wait_filled)
    assert "front" in roles(points)
    assert matrix.found["running"] > 0, "some kills come when it is the caller's"


def test_R02_R20_R21_a_kill_at_any_point_of_a_snapshot_of_an_image(
    matrix: Matrix, backend: Backend
) -> None:
    """What its template's spawn does is what the caller's does, which is killed elsewhere."""
    spawned = Counter(point.name for point in matrix.record(create(GOES, backend), nothing))
    matrix.daemon.traced_options = ["--image-snapshots=1"]

    def built() -> bool:
        """Looks without a request: its answer would be one more point."""
        kept = [path.name for path in (matrix.daemon.state_dir / "snapshots").iterdir()]
        whole = len(kept) == 1 and kept[0][0] != "." and matrix.daemon.rows() == 2
        return whole or "killed" in matrix.tracer().lines()

    def miss(client: Client) -> None:
        client.create(id=GOES, memory_mib=backend.memory_mib)
        wait_until(built, what="no snapshot of the image")

    points = sweep(
        matrix, miss, nothing, ["after+"], lambda point: point.nth <= 2 * spawned[point.name]
    )
    assert roles(points) == {"root", "front", "child"}


LAUNCHED_ONLY = Point("front connect ", 1)  # the VMM runs, and nobody has spoken to it
KILLED_ONLY = Point("root wait4 ", 1)  # the VMM is dead, and all else is there


def test_R04_R02_R20_a_kill_while_a_half_made_vm_is_undone(
    matrix: Matrix, backend: Backend
) -> None:
    points = sweep_recovery(matrix, LAUNCHED_ONLY, create(COMES, backend), nothing)
    assert {"root pidfd_send_signal ", "root unlinkat priv/ID"} <= {p.name for p in points}


def test_R04_R02_R20_a_kill_while_a_delete_is_finished(matrix: Matrix, backend: Backend) -> None:
    points = sweep_recovery(matrix, KILLED_ONLY, delete, create(GOES, backend))
    assert "root unlinkat priv/ID" in {p.name for p in points}
