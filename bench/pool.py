"""Claims from the warm pool, and the first command of what was claimed."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from bench import rig as rigs
from bench.figures import QUIET_S, Effort, Figure, absolute, figure, in_turns
from bench.rig import Motte, Rig
from bench.statistics import Summary
from harness.waiting import wait_until

PACED_SIZE = 4
ROW = 32
RAW_EACH = 4  # rounds: a p99 of claims needs more samples than the medians of the first command
FULL_S = 60


@dataclass(frozen=True)
class Plan:
    paced: Effort
    rows: Effort


FULL = Plan(Effort(100, 60), Effort(4, 20))
QUICK = Plan(Effort(5, 5), Effort(2, 1))


def line(image: str, memory_mib: int, size: int) -> str:
    """What bench_client asks for."""
    return f"{image},vcpus=1,memory-mib={memory_mib},disk-mib=0,min={size},max={size}"


def wait_full(motte: Motte, size: int, seconds: float = FULL_S) -> None:
    wait_until(
        lambda: motte.counted("motte_pool_vms") == size, seconds, f"the pool is not of {size}"
    )


def configure(motte: Motte, text: str) -> None:
    daemon, says = motte.daemon, "reloaded: pool"
    before = daemon.log.count(says)
    rigs.config_of(daemon).write_text(text, encoding="utf-8")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: daemon.log.count(says) > before, what=daemon.log[-500:])


@contextlib.contextmanager
def filled(motte: Motte, size: int, seconds: float = FULL_S) -> Iterator[None]:
    """So many wait; nobody does afterwards, so that other stages' spawns boot."""
    text = line(motte.daemon.backend.image, motte.daemon.backend.memory_mib, size)
    configure(motte, f"pool = {text}\n")
    wait_full(motte, size, seconds)
    try:
        yield
    finally:
        configure(motte, "")
        wait_full(motte, 0)


def require_claimed(source: str) -> None:
    if source != "pool":
        raise RuntimeError(f"a VM that was to be claimed has the source `{source}`: no figure")


def quick_enough(claims: Summary) -> bool:
    return claims.p50 <= 5 and claims.p99 <= 20


def claim_figure(ms: list[float], pace: str) -> Figure:
    return absolute(
        f"pool claim, {pace}", "ms", ms, target="p50 ≤ 5, p99 ≤ 20 ms", limit=quick_enough
    )


def paced(rig: Rig, effort: Effort) -> list[Figure]:
    motte = rig.motte
    tag, _ = motte.start()
    vmm = next(iter(motte.daemon.vmms()))
    claims: list[float] = []
    firsts: list[float] = []
    beside: list[float] = []  # of the rounds that have a raw one
    raw: list[float] = []

    def claim() -> None:
        first = motte.first()
        require_claimed(first.source)
        claims.append(first.claim_ms)
        firsts.append(first.ms)
        motte.remove(first.tag, 0)
        wait_full(motte, PACED_SIZE)  # before the quiet of what comes next

    def ask() -> None:
        lines = motte.client.ask("raw", f"/proc/{vmm}/root/v.sock", 1)
        raw.append(float(lines[0][1]) / 1e3)

    with filled(motte, PACED_SIZE):
        for number in effort:
            both = number % RAW_EACH == 0
            in_turns([number // RAW_EACH], [claim, ask] if both else [claim], QUIET_S)
            beside += firsts[-1:] if both else []
    motte.delete(tag)
    return [
        claim_figure(claims, "paced"),
        figure("first command from the pool, paced", "ms", beside, "raw channel", raw),
    ]


def in_a_row(rig: Rig, effort: Effort) -> Figure:
    """Each round claims all that wait, one after the other; what is made behind them is made then
    too."""
    claims: list[float] = []
    motte = rig.motte
    with filled(motte, ROW):
        for _ in effort:
            made = [motte.start() for _ in range(ROW)]
            for tag, spawned in made:
                require_claimed(spawned.sources[0])
                claims += spawned.ms
                motte.delete(tag)
            wait_full(motte, ROW)
    return claim_figure(claims, f"back to back out of {ROW}")


def measure(rig: Rig, quick: bool) -> list[Figure]:
    plan = QUICK if quick else FULL
    return [*paced(rig, plan.paced), in_a_row(rig, plan.rows)]
