"""Snapshots: their size and time follow what the guest has touched, not what it has."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import statistics
from bench.rig import Rig

MEMORY_MIB = 512
TOUCHED_MIB = (0, 32, 64, 128, 256)
QUICK_TOUCHED_MIB = (0, 32)
ROUNDS, QUICK_ROUNDS = 5, 1


@dataclass(frozen=True)
class Saved:
    """Medians of snapshots of a guest that has touched so much of its memory."""

    touched_mib: int
    mib: float
    ms: float


def take(rig: Rig, touched_mib: int) -> tuple[float, float]:
    """Of a fresh VM, whose first snapshot has what was written alone: MiB and ms."""
    tag, _ = rig.motte.start(memory_mib=MEMORY_MIB)
    vm = f"{tag}-0"
    rig.motte.ask("POST", f"/vms/{vm}/exec", {"argv": ["hog", str(touched_mib)]})
    begin = time.monotonic()
    snapshot = rig.motte.snapshot(vm)
    took = time.monotonic() - begin
    rig.motte.delete(tag)
    rig.motte.ask("DELETE", f"/snapshots/{snapshot['id']}")
    return snapshot["bytes"] / (1 << 20), took * 1e3


def measure(rig: Rig, quick: bool) -> list[Saved]:
    touched = QUICK_TOUCHED_MIB if quick else TOUCHED_MIB
    found: dict[int, list[tuple[float, float]]] = {mib: [] for mib in touched}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for mib in touched:
            found[mib].append(take(rig, mib))
    return [
        Saved(
            mib,
            statistics.median([size for size, _ in taken]),
            statistics.median([ms for _, ms in taken]),
        )
        for mib, taken in found.items()
    ]


def rows(found: Sequence[Saved]) -> list[list[str]]:
    head = [f"snapshot of {MEMORY_MIB} MiB, touched: MiB", "takes: MiB", "ms"]
    return [head, *([str(one.touched_mib), f"{one.mib:.1f}", f"{one.ms:.0f}"] for one in found)]


def text(found: Sequence[Saved]) -> str:
    return "\n".join("  ".join(word.rjust(12) for word in row) for row in rows(found))


def markdown(found: Sequence[Saved]) -> str:
    lines = rows(found)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
