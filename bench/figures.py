"""What is measured: each stage asks the rig in turns and hands back figures."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench import statistics
from bench.rig import Floor, Program, Rig, Spawned
from bench.statistics import Interval, Summary

QUIET_S = 0.3
CROWD = 32
CONNECTIONS = 8


@dataclass(frozen=True)
class Effort:
    """How often at most, and for how long at most, a stage goes round."""

    rounds: int
    seconds: float

    def __iter__(self) -> Iterator[int]:
        deadline = time.monotonic() + self.seconds
        for number in range(self.rounds):
            if number >= 2 and time.monotonic() > deadline:
                return
            yield number


@dataclass(frozen=True)
class Plan:
    paced: Effort
    in_a_row: Effort
    exec_paced: Effort
    exec_in_a_row: Effort
    load: Effort
    load_ms: int
    crowd: Effort


FULL = Plan(
    Effort(40, 48), Effort(80, 20), Effort(20, 15), Effort(20, 10), Effort(8, 15), 500,
    Effort(8, 35),
)  # fmt: skip
QUICK = Plan(
    Effort(5, 7), Effort(6, 4), Effort(3, 3), Effort(3, 2), Effort(2, 3), 200, Effort(2, 6)
)


@dataclass(frozen=True)
class Figure:
    """`ours` against `floor`, if it has one, in `unit`. `met`: None where there is no target."""

    name: str
    unit: str
    ours: Summary
    floor_name: str = ""
    floor: Summary | None = None
    ratio: Interval | None = None
    difference: Interval | None = None
    target: str = ""
    met: bool | None = None


Limit = Callable[[Interval, Interval], bool]


def figure(
    name: str,
    unit: str,
    ours: Sequence[float],
    floor_name: str,
    floor: Sequence[float],
    *,
    target: str = "",
    limit: Limit | None = None,
) -> Figure:
    ratio, difference = statistics.ratio(ours, floor), statistics.difference(ours, floor)
    return Figure(
        name,
        unit,
        statistics.summarize(ours),
        floor_name,
        statistics.summarize(floor),
        ratio,
        difference,
        target,
        limit(ratio, difference) if limit is not None else None,
    )


def absolute(
    name: str, unit: str, ours: Sequence[float], *, target: str, limit: Callable[[Summary], bool]
) -> Figure:
    """One whose target is a time, whatever the machine."""
    summary = statistics.summarize(ours)
    return Figure(name, unit, summary, target=target, met=limit(summary))


@dataclass
class Spawns:
    """The same rounds of each way to spawn."""

    motte: list[Spawned]
    guarded: list[Spawned]
    bare: list[Spawned]


def in_turns(effort: Iterable[int], ways: Sequence[Callable[[], None]], quiet_s: float = 0) -> None:
    """All ways, round after round, each round with another one first."""
    for number in effort:
        for i in range(len(ways)):
            time.sleep(quiet_s)
            ways[(number + i) % len(ways)]()


def spawn_rounds(rig: Rig, effort: Effort, quiet_s: float) -> Spawns:
    spawns = Spawns([], [], [])
    ways = [
        lambda: spawns.motte.append(rig.motte.spawn()),
        lambda: spawns.guarded.append(rig.guarded.spawn()),
        lambda: spawns.bare.append(rig.bare.spawn()),
    ]
    in_turns(effort, ways, quiet_s)
    return spawns


@contextlib.contextmanager
def template(rig: Rig) -> Iterator[str]:
    """A snapshot to restore from, of a VM that ran no command."""
    tag, _ = rig.motte.start()
    snapshot: str = rig.motte.snapshot(f"{tag}-0")["id"]
    rig.motte.delete(tag)
    try:
        yield snapshot
    finally:
        rig.motte.ask("DELETE", f"/snapshots/{snapshot}")


def restore_rounds(rig: Rig, effort: Effort, quiet_s: float, snapshot: str) -> Spawns:
    spawns = Spawns([], [], [])
    ways = [
        lambda: spawns.motte.append(rig.motte.spawn(snapshot=snapshot)),
        lambda: spawns.guarded.append(rig.guarded.spawn(snapshot=snapshot)),
    ]
    in_turns(effort, ways, quiet_s)
    return spawns


def restore_figure(spawns: Spawns, pace: str) -> Figure:
    return figure(
        f"restore, {pace}",
        "ms",
        first_ms(spawns.motte),
        "floor 2",
        first_ms(spawns.guarded),
        target="≤ 1.15x",
        limit=lambda ratio, _: ratio.value <= 1.15,
    )


def first_ms(spawned: Sequence[Spawned]) -> list[float]:
    return [one.ms[0] for one in spawned]


def spawn_figures(spawns: Spawns, pace: str) -> list[Figure]:
    motte = first_ms(spawns.motte)
    return [
        figure(
            f"cold spawn, {pace}",
            "ms",
            motte,
            "floor 2",
            first_ms(spawns.guarded),
            target="≤ 1.10x, ≤ 3 ms above",
            limit=lambda ratio, above: ratio.value <= 1.10 and above.value <= 3,
        ),
        figure(f"cold spawn, {pace}", "ms", motte, "floor 1", first_ms(spawns.bare)),
    ]


def exec_rounds(rig: Rig, effort: Effort, each: int, quiet_s: float, pace: str) -> Figure:
    tag, _ = rig.motte.start()
    vm = f"{tag}-0"
    vmm = next(iter(rig.motte.daemon.vmms()))
    ours: list[float] = []
    raw: list[float] = []

    def ask(out: list[float], *words: object) -> None:
        out += [float(line[1]) / 1e3 for line in rig.motte.client.ask(*words)]

    in_turns(
        effort,
        [
            lambda: ask(ours, "exec", vm, each),
            lambda: ask(raw, "raw", f"/proc/{vmm}/root/v.sock", each),
        ],
        quiet_s,
    )
    rig.motte.delete(tag)
    return figure(
        f"exec of `true`, {pace}",
        "ms",
        ours,
        "raw channel",
        raw,
        target="≤ 1.5 ms above",
        limit=lambda _, above: above.value <= 1.5,
    )


HTTP_FLOORS = ("libmicrohttpd", "and a worker")


def load_rounds(rig: Rig, effort: Effort, milliseconds: int) -> list[Figure]:
    tag, _ = rig.motte.start()
    target = f"/vms/{tag}-0"
    names = ("motte", *HTTP_FLOORS)
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}

    def ask(name: str, client: Program, pid: int) -> None:
        words = client.ask("load", target, CONNECTIONS, milliseconds, pid)[0]
        done, wall_us, cpu_us = (float(word) for word in words[1:])
        rates[name].append(done / wall_us * 1e6)
        cpu[name].append(cpu_us / done)

    size = len(rig.motte.get(target))
    with rig.constant(size) as plain, rig.constant(size, "worker") as handed:
        asked = {
            "motte": (rig.motte.client, rig.motte.daemon.front_pid),
            HTTP_FLOORS[0]: plain,
            HTTP_FLOORS[1]: handed,
        }
        in_turns(effort, [partial(ask, name, *asked[name]) for name in names])
    rig.motte.delete(tag)
    time_name, rate_name = (
        "GET /vms/{id}, processor time",
        f"GET /vms/{{id}}, {CONNECTIONS} connections",
    )
    first, second = HTTP_FLOORS
    return [
        figure(
            time_name,
            "µs",
            cpu["motte"],
            first,
            cpu[first],
            target="≤ 20 µs above",
            limit=lambda _, above: above.value <= 20,
        ),
        figure(time_name, "µs", cpu["motte"], second, cpu[second]),
        figure(
            rate_name,
            "1/s",
            rates["motte"],
            first,
            rates[first],
            target="≥ 0.50x",
            limit=lambda ratio, _: ratio.value >= 0.5,
        ),
        figure(rate_name, "1/s", rates["motte"], second, rates[second]),
    ]


def crowd_rounds(rig: Rig, effort: Effort) -> Figure:
    rates: dict[str, list[float]] = {"motte": [], "floor": []}

    def spawn(name: str, way: Callable[[int], Spawned]) -> None:
        rates[name].append(CROWD / way(CROWD).wall_ms * 1e3)

    guarded: Floor = rig.guarded
    in_turns(
        effort,
        [lambda: spawn("motte", rig.motte.spawn), lambda: spawn("floor", guarded.spawn)],
        QUIET_S,
    )
    return figure(
        f"spawns, {CROWD} at once",
        "1/s",
        rates["motte"],
        "floor 2",
        rates["floor"],
        target="≥ 0.90x",
        limit=lambda ratio, _: ratio.value >= 0.9,
    )
