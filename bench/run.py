"""The whole run: measure, tell, write. run.sh prepares it."""

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench import crowd, emulated, figures, pool, report, rig, saved
from bench.crowd import Crowd
from bench.figures import Figure, Plan, Spawns
from bench.saved import Saved

WARM_UPS = 3
PICTURE = "spawn.svg"  # beside what is recorded


@dataclasses.dataclass
class Found:
    figures: list[Figure] = dataclasses.field(default_factory=list)
    paced: Spawns | None = None  # what the time line is drawn from
    restored: Spawns | None = None  # likewise
    thousand: Crowd | None = None
    saved: list[Saved] = dataclasses.field(default_factory=list)


def cold(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.paced = figures.spawn_rounds(machine, plan.paced, figures.QUIET_S)
    in_a_row = figures.spawn_rounds(machine, plan.in_a_row, 0)
    found.figures += figures.spawn_figures(found.paced, "paced")
    found.figures += figures.spawn_figures(in_a_row, "back to back")


def commands(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.figures += [
        figures.exec_rounds(machine, plan.exec_paced, 1, figures.QUIET_S, "paced"),
        figures.exec_rounds(machine, plan.exec_in_a_row, 10, 0, "back to back"),
    ]


def reads(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.figures += figures.load_rounds(machine, plan.load, plan.load_ms)


def at_once(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.figures.append(figures.crowd_rounds(machine, plan.crowd))


def restores(plan: Plan, machine: rig.Rig, found: Found) -> None:
    with figures.template(machine) as snapshot:
        for _ in range(WARM_UPS):
            machine.motte.spawn(snapshot=snapshot)
            machine.guarded.spawn(snapshot=snapshot)
        found.restored = figures.restore_rounds(machine, plan.paced, figures.QUIET_S, snapshot)
        in_a_row = figures.restore_rounds(machine, plan.in_a_row, 0, snapshot)
    found.figures += [
        figures.restore_figure(found.restored, "paced"),
        figures.restore_figure(in_a_row, "back to back"),
    ]


def snapshots(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.saved = saved.measure(machine, plan is figures.QUICK)


def claims(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.figures += pool.measure(machine, plan is figures.QUICK)


def emulation(plan: Plan, machine: rig.Rig, found: Found) -> None:
    del machine  # Firecracker's
    if rig.can_emulate():
        found.figures += emulated.measure(plan is figures.QUICK)


def thousand(plan: Plan, machine: rig.Rig, found: Found) -> None:
    found.thousand = crowd.measure(machine, plan is figures.QUICK)


STAGES = {
    "spawn": cold, "exec": commands, "get": reads, "at-once": at_once, "restore": restores,
    "pool": claims, "emulated": emulation, "snapshot": snapshots, "thousand": thousand,
}  # fmt: skip
USUAL = [name for name in STAGES if name != "thousand"]  # which takes longer than all others
QUICK = [name for name in USUAL if name != "emulated"]  # a Linux boots there
LIMIT_S = 1500  # for a machine that stands still


def measure(plan: Plan, machine: rig.Rig, stages: list[str]) -> Found:
    for _ in range(WARM_UPS):  # file caches, and what a first spawn finds out
        machine.motte.spawn()
        machine.guarded.spawn()
        machine.bare.spawn()
    found = Found()
    for name in stages:
        STAGES[name](plan, machine, found)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=STAGES)
    parser.add_argument("--json", type=Path, default=Path("build/bench/figures.json"))
    parser.add_argument("--svg", type=Path, default=Path("build/bench/timeline.svg"))
    parser.add_argument("--record", type=Path)
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, lambda got, _: sys.exit(128 + got))  # by way of what cleans up
    signal.alarm(LIMIT_S)
    about = rig.about()
    about["load_before"] = os.getloadavg()[0]
    begin = time.monotonic()
    with rig.running() as machine:
        plan = figures.QUICK if asked.quick else figures.FULL
        found = measure(plan, machine, asked.only or (QUICK if asked.quick else USUAL))
    about["load_after"] = os.getloadavg()[0]
    about["seconds"] = round(time.monotonic() - begin, 1)
    lines = report.timeline(found.paced, found.restored)
    print(report.conditions(about))
    if found.figures:
        print("", report.table(found.figures), sep="\n")
    if lines:
        print("", report.timeline_text(lines), sep="\n")
    if found.saved:
        print("", saved.text(found.saved), sep="\n")
    if found.thousand is not None:
        print("", crowd.text(found.thousand), sep="\n")
    document = {
        "about": about,
        "figures": [dataclasses.asdict(figure) for figure in found.figures],
        "timeline": [dataclasses.asdict(line) for line in lines],
        "snapshots": [dataclasses.asdict(one) for one in found.saved],
        "crowd": dataclasses.asdict(found.thousand) if found.thousand is not None else None,
    }
    asked.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if lines:
        asked.svg.write_text(report.timeline_svg(lines), "utf-8")
    if asked.record is not None:
        record(asked.record, about, found, lines)
    return 0


def record(path: Path, about: dict[str, Any], found: Found, lines: list[report.Line]) -> None:
    """Replaces what was measured again, and the picture."""
    text = path.read_text("utf-8")
    said = report.conditions(about)
    if found.figures:
        new = [said, report.markdown(found.figures)]
        if lines:
            new.append(f"![The steps of a spawn]({PICTURE})")
            new.append(f"```\n{report.timeline_text(lines)}\n```")
            (path.parent / PICTURE).write_text(report.timeline_svg(lines), "utf-8")
        if found.saved:
            new.append(saved.markdown(found.saved))
        text = report.between_marks(text, "\n\n".join(new), report.FIGURES)
    if found.thousand is not None:
        new = [said, crowd.markdown(found.thousand)]
        text = report.between_marks(text, "\n\n".join(new), report.CROWD)
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
