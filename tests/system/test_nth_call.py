"""The nth call of a spawn, an exec and a delete fails, or of a start that adopts, for n = 1, 2, 3 …

Which calls there are is not written down here: a run under the tracer records them, and counts the
allocations. Whatever fails, the service lives and answers with a code, or a start ends with a
sentence; nothing is left; a VM that ran still runs; and the same thing works at once when nothing
fails any more.

In a spawn, an exec and a delete every call fails once, in its likeliest way. Of a start's, of the
allocations and of what fails from then on a part is chosen by a seed (MOTTE_SEED).
MOTTE_NTH_CALL=thorough: all, in every way; hours."""

import errno
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

from harness.allocations import HALVES, Shortage, ShortDaemon
from harness.backend import Backend
from harness.contract import Contract
from harness.faults import Fault, FaultyDaemon
from harness.nth import ANSWER_S, FAILURES, SLOW_S, Bench, Made
from harness.traced import Point
from harness.watch import half as half_of
from harness.watch import settled

pytestmark = [pytest.mark.testguest, pytest.mark.timeout(0)]

THOROUGH = os.environ.get("MOTTE_NTH_CALL") == "thorough"
SEED = int(os.environ.get("MOTTE_SEED", str(time.time_ns() % 1_000_000)))
STICKY, STICKY_ALLOCATIONS = 30, 8  # how many fail from then on
ALLOCATIONS = 100  # of each half
SNAPSHOTS, COPYING = 100, 8  # faults of a snapshot and a restore, among the first of each name
AGAIN, ROUNDS = 3, 5  # times, if something was kept
STARTS, SAME_IN_START = 80, 4  # of a start's calls, and of those with one name
OPTIONS = ("--boot-timeout-ms=3000",)

LOADERS = Point("root mmap ", 1)  # the dynamic linker's first memory

Order = TypeVar("Order", Fault, Shortage)
Some = TypeVar("Some")


def some(all_of_them: Sequence[Some], count: int) -> list[Some]:
    if THOROUGH or len(all_of_them) <= count:
        return list(all_of_them)
    return random.Random(SEED).sample(all_of_them, count)  # noqa: S311


def chosen(found: Sequence[tuple[Point, list[int]]], same_name: int) -> list[Fault]:
    """Of the points recorded, those to fail; the sticky ones last."""
    by_name: dict[str, list[tuple[Point, list[int]]]] = defaultdict(list)
    for point, errors in found:
        if errors:
            by_name[point.name].append((point, errors))
    faults = [
        Fault(point, error)
        for same in by_name.values()
        for point, errors in some(same, same_name)
        for error in (errors if THOROUGH else errors[:1])
    ]
    lasting = [
        Fault(fault.point, fault.error, True)
        for fault in faults
        if fault.error > 0 and fault.error != errno.EINTR  # which nothing can make last
    ]
    return faults + some(lasting, STICKY)


def shortages(name: str, count: int) -> list[Shortage]:
    every = range(1, count + 1)
    once = [Shortage(name, nth) for nth in sorted(some(every, ALLOCATIONS))]
    return once + [Shortage(name, nth, True) for nth in some(every, STICKY_ALLOCATIONS)]


@pytest.fixture
def calls(
    backend: Backend, contract: Contract, start: object, record_property: Callable[..., None]
) -> Iterator[Bench[FaultyDaemon]]:
    """`start` sees to it that the shared daemon stands still meanwhile."""
    bench = Bench(FaultyDaemon(backend, OPTIONS), contract, backend.memory_mib)
    yield bench
    record_property("counted: injected failures of a call", bench.injected.total())
    bench.daemon.close()


@pytest.fixture
def memory(
    backend: Backend, contract: Contract, start: object, record_property: Callable[..., None]
) -> Iterator[Bench[ShortDaemon]]:
    bench = Bench(ShortDaemon(backend, OPTIONS), contract, backend.memory_mib)
    yield bench
    record_property("counted: injected failures of an allocation", bench.injected.total())
    bench.daemon.close()


def sweep(
    bench: Bench[Made],
    orders: Sequence[Order],
    arm: Callable[[Order | None], int],
    check: Callable[[Order], None] = lambda _: None,
) -> None:
    """`arm` with None ends it, and counts what failed: none if this time it was not reached."""
    for order in orders:
        began = time.monotonic()
        try:
            bench.prepare()
            arm(order)
            bench.scenario(order.silences)
            if order.ends and bench.has_ended():
                bench.check_ended()
                bench.daemon.start()
                bench.front = bench.daemon.front_pid
            bench.injected[order.call] += arm(None) > 0
            bench.check_empty()
            bench.check_works()
            check(order)
        except FAILURES as error:
            bench.note(order, error)
            bench.begin_again()
        if time.monotonic() - began > SLOW_S:
            print(f"slow: {order}: {time.monotonic() - began:.1f} s", flush=True)


def test_R04_R20_the_nth_call_of_a_spawn_an_exec_and_a_delete_fails(
    calls: Bench[FaultyDaemon],
) -> None:
    daemon = calls.daemon
    calls.begin()
    daemon.tell("record")
    calls.check_works()
    daemon.tell("off")
    found = daemon.recorded()
    assert len(found) > 400
    before = {pid: half_of(pid) for pid in (daemon.pid, calls.front)}

    def arm(order: Fault | None) -> int:
        daemon.tell("off" if order is None else order.order())
        return len(daemon.failed())

    def check_descriptors() -> None:
        for pid, was in before.items():
            now = settled(pid, was)
            kept = Counter(now.fds) - Counter(was.fds)  # a connection is another one each time
            assert len(now.fds) <= len(was.fds), f"descriptors are kept: {kept}"

    faults = chosen(found, len(found))
    sweep(calls, [fault for fault in faults if not fault.ends], arm)
    calls.report("spawn, exec, delete", SEED)
    check_descriptors()
    sweep(calls, [fault for fault in faults if fault.ends], arm)  # after each it is another daemon
    calls.report("spawn, exec, delete, ended", SEED)


def test_R02_R04_R20_the_nth_call_of_a_snapshot_and_a_restore_fails(
    calls: Bench[FaultyDaemon],
) -> None:
    daemon = calls.daemon
    calls.begin()
    calls.keeps = True
    calls.prepare()
    daemon.tell("record")
    calls.scenario(silenced=False)
    daemon.tell("off")
    found = [(point, errors) for point, errors in daemon.recorded() if point.nth <= COPYING]
    calls.check_empty()

    def arm(order: Fault | None) -> int:
        daemon.tell("off" if order is None else order.order())
        return len(daemon.failed())

    sweep(calls, some(chosen(found, 1), SNAPSHOTS), arm)
    calls.report("snapshot, restore, delete", SEED)


def settled_memory(daemon: ShortDaemon, enough: dict[str, int] | None = None) -> dict[str, int]:
    """The least that each half holds in a while: threads take some and give it back. No longer than
    until it is down to `enough`."""
    least = {half: daemon.held(half) for half in HALVES}
    deadline = time.monotonic() + (1.5 if enough is None else 5)
    while time.monotonic() < deadline:
        least = {half: min(least[half], daemon.held(half)) for half in HALVES}
        if enough is not None and all(least[half] <= enough[half] for half in HALVES):
            break
        time.sleep(0.02)
    return least


@pytest.mark.parametrize("name", HALVES)
def test_R04_R20_the_nth_allocation_of_a_spawn_an_exec_and_a_delete_fails(
    memory: Bench[ShortDaemon], name: str
) -> None:
    daemon = memory.daemon
    memory.begin()
    daemon.order(None)
    memory.check_works()
    count = daemon.count(name)
    assert count > 1000
    memory.check_empty()
    memory.check_works()
    before = settled_memory(daemon)

    def arm(order: Shortage | None) -> int:
        failed = daemon.failed()
        daemon.order(order)
        return failed

    def check(order: Shortage) -> None:
        """A library may keep something for good the first time (a connection of the store's pool,
        its schema when it is first used); a leak comes each time."""
        now = settled_memory(daemon, before)
        if all(now[half] <= before[half] for half in HALVES):
            return
        for _ in range(ROUNDS):
            for _ in range(AGAIN):
                arm(order)
                memory.scenario(silenced=False)
                arm(None)
                memory.check_empty()
                memory.check_works()
            then = settled_memory(daemon, now)
            if all(then[half] < now[half] + AGAIN for half in HALVES):
                before.update(then)
                return
            now = then
        raise AssertionError(f"leak: {before}, then {now}")

    sweep(memory, shortages(name, count), arm, check)
    memory.report(f"spawn, exec, delete: memory of {name}", SEED)


def start_once(calls: Bench[FaultyDaemon], fault: Fault) -> None:
    daemon = calls.daemon
    daemon.first = fault.order()
    calls.log_at = len(daemon.log)
    try:
        daemon.start(ANSWER_S)
        daemon.tell("off")
        calls.answers["ready"] += 1
    except FAILURES:
        calls.check_ended()
        calls.answers["ended"] += 1
    calls.injected[fault.call] += len(daemon.failed()) > 0
    running = daemon.vmms()
    assert list(running) == [calls.pid], f"VMMs {running}: {calls.new_log()[-400:]}"
    if daemon.process is None:
        daemon.first = "off"
        daemon.start()
    calls.front = daemon.front_pid
    calls.check_empty()


def test_R02_R04_R20_the_nth_call_of_a_start_that_adopts_fails(
    calls: Bench[FaultyDaemon],
) -> None:
    daemon = calls.daemon
    calls.begin()
    daemon.stop()
    daemon.first = "record"
    daemon.start()
    daemon.tell("off")
    calls.front = daemon.front_pid
    faults = [
        fault
        for fault in chosen(daemon.recorded(), SAME_IN_START)
        # With a disk that reads no more a VM is lost, whose image lies on it.
        if not (fault.sticky and fault.error == errno.EIO)
        # Before it there is no motted that could say a sentence.
        and not fault.point.name.startswith("root execve bin/motted")
        and fault.point != LOADERS  # which crashes without it
    ]
    for fault in some(faults, STARTS):
        try:
            daemon.stop()
            start_once(calls, fault)
        except FAILURES as error:
            calls.note(fault, error)
            calls.begin_again()
    calls.check_works()
    calls.report("start", SEED)
