"""Figures for people: a table, its Markdown, the time line of a spawn as text and as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bench import statistics
from bench.figures import Figure, Spawns
from bench.rig import Spawned
from bench.statistics import Interval, Summary

FIGURES = "<!-- figures: bench/run.sh --record -->", "<!-- end of figures -->"
CROWD = "<!-- crowd: bench/run.sh --only thousand --record -->", "<!-- end of crowd -->"
HEADERS = (
    "figure", "unit", "n", "p50", "p90", "p99", "min", "against", "p50", "ratio", "above",
    "target", "",
)  # fmt: skip


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def row(figure: Figure) -> list[str]:
    ours: Summary = figure.ours
    verdict = "" if figure.met is None else "met" if figure.met else "missed"
    values = (ours.p50, ours.p90, ours.p99, ours.min)
    floor = number(figure.floor.p50) if figure.floor is not None else ""
    return [
        figure.name, figure.unit, str(ours.n), *map(number, values), figure.floor_name,
        floor, interval(figure.ratio), interval(figure.difference), figure.target, verdict,
    ]  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    rows = [list(HEADERS), *map(row, figures)]
    widths = [max(len(line[i]) for line in rows) for i in range(len(HEADERS))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in rows
    )


def markdown(figures: Sequence[Figure]) -> str:
    rows = [list(HEADERS), ["---"] * len(HEADERS), *map(row, figures)]
    return "\n".join(f"| {' | '.join(line)} |" for line in rows)


def conditions(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    return (
        f"Commit {about['commit']}; {about['processors']} x {about['cpu']}, host {about['host']}, "
        f"{about['kvm']}, Linux {about['kernel']}; {versions}; load average "
        f"{about['load_before']:.1f} before, {about['load_after']:.1f} after."
    )


# ---- the time line of a spawn ------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    step: str
    begin_ms: float
    ms: float


@dataclass(frozen=True)
class Line:
    name: str
    bars: list[Bar]
    total_ms: float


def line(name: str, spawned: Sequence[Spawned], rest: str = "") -> Line:
    """Medians of each step, one after the other. `rest`: what was waited for beside the steps."""
    steps = [
        {name: ms for name, ms in one.steps[0].items() if name != "connect"} for one in spawned
    ]
    if rest:
        for one, told in zip(spawned, steps, strict=True):
            told[rest] = one.ms[0] - sum(told.values())
    bars: list[Bar] = []
    at = 0.0
    for step in steps[0]:
        ms = statistics.median([told[step] for told in steps])
        bars.append(Bar(step, at, ms))
        at += ms
    return Line(name, bars, statistics.median([one.ms[0] for one in spawned]))


def timeline(spawns: Spawns | None, restored: Spawns | None) -> list[Line]:
    lines = []
    if spawns is not None:
        lines += [
            line("Motte", spawns.motte, "HTTP, commit"),
            line("floor 2: the same guards", spawns.guarded),
            line("floor 1: jailer and API", spawns.bare),
        ]
    if restored is not None:
        lines += [
            line("Motte, restored", restored.motte, "HTTP, commit"),
            line("floor 2, restored", restored.guarded),
        ]
    return lines


def end_of(lines: Sequence[Line]) -> float:
    return max(max(bar.begin_ms + bar.ms for bar in one.bars) for one in lines)


def timeline_text(lines: Sequence[Line], width: int = 60) -> str:
    scale = width / end_of(lines)
    out = []
    for one in lines:
        out.append(f"{one.name}: {one.total_ms:.1f} ms")
        for bar in one.bars:
            begin = round(bar.begin_ms * scale)
            length = round((bar.begin_ms + bar.ms) * scale) - begin
            drawn = " " * begin + ("█" * length or "▏")
            out.append(f"  {bar.step:<13}{bar.ms:8.2f} ms  {drawn}")
    return "\n".join(out)


COLOURS = {
    "admit": "#7b6888", "guard": "#a05d56", "launch": "#d0743c", "configure": "#e0b040",
    "start": "#5b8c5a", "hello": "#4a7fb0", "HTTP, commit": "#6b6b6b",
}  # fmt: skip


def timeline_svg(lines: Sequence[Line]) -> str:
    left, wide, high = 190, 640, 34
    scale = wide / end_of(lines)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 90}" '
        f'height="{high * len(lines) + 60}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, one in enumerate(lines):
        y = 10 + i * high
        out.append(f'<text x="10" y="{y + 16}">{escape(one.name)}</text>')
        for bar in one.bars:
            out.append(
                f'<rect x="{left + bar.begin_ms * scale:.1f}" y="{y}" '
                f'width="{max(bar.ms * scale, 0.5):.1f}" height="{high - 10}" '
                f'fill="{COLOURS.get(bar.step, "#999999")}">'
                f"<title>{escape(bar.step)}: {bar.ms:.2f} ms</title></rect>"
            )
        end = left + one.bars[-1].begin_ms * scale + one.bars[-1].ms * scale
        out.append(f'<text x="{end + 6:.1f}" y="{y + 16}">{one.total_ms:.1f} ms</text>')
    y = 10 + high * len(lines) + 12
    for i, (step, colour) in enumerate(COLOURS.items()):
        x = 10 + i * 120
        out.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17}" y="{y + 11}">{step}</text>')
    return "\n".join([*out, "</svg>", ""])


def between_marks(text: str, new: str, marks: tuple[str, str]) -> str:
    """`text` with what stands between the marks replaced."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"no marks: {marks[0]} … {marks[1]}")
    return f"{before}{begin}\n{new}\n{end}{after}"
