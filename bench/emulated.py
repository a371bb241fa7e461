"""QEMU and Linux: restores, and the first command of what waited in a pool."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import pool
from bench import rig as rigs
from bench.figures import QUIET_S, Effort, Figure, Spawns, figure, in_turns, restore_figure
from bench.rig import Floor, Motte

BOOT_S = 240


@dataclass(frozen=True)
class Plan:
    restores: Effort
    pools: Effort
    waiting: int  # in each


FULL = Plan(Effort(30, 50), Effort(6, 50), 8)
QUICK = Plan(Effort(2, 1), Effort(1, 1), 4)


def token_of(motte: Motte) -> str:
    """What opens sessions of the one VM that there is: its kernel's command line has it."""
    for vmm in motte.daemon.vmms():
        line = Path(f"/proc/{vmm}/cmdline").read_text(encoding="utf-8")
        for word in line.replace("\0", " ").split():
            if word.startswith("motte.token="):
                return word.partition("=")[2]
    raise RuntimeError("no VM with a token")


def restores(motte: Motte, floor: Floor, effort: Iterable[int]) -> Figure:
    """Of a VM that ran no command."""
    tag, _ = motte.start(memory_mib=rigs.EMULATION.memory_mib)
    token = token_of(motte)
    snapshot: str = motte.snapshot(f"{tag}-0")["id"]
    motte.delete(tag)
    spawns = Spawns([], [], [])
    ways = [
        lambda: spawns.motte.append(motte.spawn(snapshot=snapshot)),
        lambda: spawns.guarded.append(floor.spawn(snapshot=f"{snapshot} {token}")),
    ]
    in_turns([0], ways)  # file caches, and what a first one finds out
    spawns.motte.clear()
    spawns.guarded.clear()
    in_turns(effort, ways, QUIET_S)
    motte.ask("DELETE", f"/snapshots/{snapshot}")
    return restore_figure(spawns, "Linux in emulation, paced")


def first_commands(motte: Motte, effort: Iterable[int], waiting: int) -> list[Figure]:
    """As many VMs may be as wait, so that none is made while others are measured. A guest's first
    command is its slowest, whoever asks for it: its code is translated then. So what is compared is
    of the same command; others' say whether to be claimed has made it slower."""
    name = "first command from the pool, Linux in emulation"
    frames: list[float] = []
    claimed: list[float] = []
    there: list[float] = []
    tags: list[str] = []

    def claim() -> None:
        first = motte.first()
        pool.require_claimed(first.source)
        tags.append(first.tag)
        claimed.append(first.ms)
        frames.append(first.frames_ms)

    def ask() -> None:
        tag, spawned = motte.start(memory_mib=rigs.EMULATION.memory_mib)
        pool.require_claimed(spawned.sources[0])
        tags.append(tag)
        time.sleep(QUIET_S)
        lines = motte.client.ask("exec", f"{tag}-0", 1)
        there.append(float(lines[0][1]) / 1e3)

    with pool.filled(motte, waiting, BOOT_S):
        for _ in effort:
            in_turns(range(waiting // 2), [claim, ask], QUIET_S)
            while tags:
                motte.delete(tags.pop())
            pool.wait_full(motte, waiting)
    return [
        figure(
            name,
            "ms",
            claimed,
            "its frames",
            frames,
            target="≤ 10 ms above",
            limit=lambda _, above: above.value <= 10,
        ),
        figure(name, "ms", claimed, "first exec, VM there", there),
    ]


def measure(quick: bool) -> list[Figure]:
    plan = QUICK if quick else FULL
    with rigs.emulating([f"--max-vms={plan.waiting}", "--image-snapshots=8"]) as (motte, floor):
        found = [restores(motte, floor, plan.restores)]
        return found + first_commands(motte, plan.pools, plan.waiting)
