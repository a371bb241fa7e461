"""A thousand live VMs: what each of them costs, and what they do to the next one's spawn."""

import ctypes
import re
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from bench import statistics
from bench.figures import in_turns
from bench.rig import Rig, Spawned, numbers
from bench.statistics import Summary

LEVELS = (1, 10, 100, 1000)
QUICK_LEVELS = (1, 10)
AT_ONCE = 8
SAMPLES, QUICK_SAMPLES = 100, 3
VM_MIB = 8  # that one takes of the host, by far
RESERVE_MIB = 2048
BASE_KIB, VM_KIB = 20 * 1024, 16
MIB = 1 << 20


@dataclass(frozen=True)
class Level:
    """With so many live VMs: one more."""

    live: int
    motte: Summary  # ms
    floor: Summary
    steps: dict[str, float]  # median ms
    front_kib: int
    root_kib: int
    tables_kib: int  # the kernel's rules, both families


@dataclass(frozen=True)
class Crowd:
    levels: list[Level]
    execs: Summary  # ms, one in each VM
    used_mib: float  # of the host's memory, by all of them
    delete_ms: float  # each


def meminfo_mib(name: str) -> int:
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    found = re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


def require_room(count: int) -> None:
    wanted, there = count * VM_MIB + RESERVE_MIB, meminfo_mib("MemAvailable")
    if there < wanted:
        raise SystemExit(f"{count} VMs want {wanted} MiB of free memory; there are {there}")


def rss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def table_bytes(family: int, level: int) -> int:
    """IPT_SO_GET_INFO of `security`: the bytes of its entries."""
    layout = struct.Struct("=32s I 5I 5I I I")
    asked = ctypes.create_string_buffer(layout.pack(b"security", *[0] * 13))
    size = ctypes.c_uint32(layout.size)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(sock.fileno(), level, 64, asked, ctypes.byref(size)) != 0:
            raise OSError(ctypes.get_errno(), "the size of a table")
    return int(layout.unpack(asked.raw[: layout.size])[-1])


def tables_kib() -> int:
    families = ((socket.AF_INET, socket.SOL_IP), (socket.AF_INET6, socket.IPPROTO_IPV6))
    return sum(table_bytes(*family) for family in families) // 1024


class Living:
    """VMs that stay; they end with the rig's daemon, whatever happens here."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.vms: list[tuple[str, int]] = []  # tag and number

    def grow(self, count: int) -> None:
        while len(self.vms) < count:
            some = min(AT_ONCE, count - len(self.vms))
            tag, _ = self.rig.motte.start(some)
            self.vms += [(tag, i) for i in range(some)]

    def exec_each(self) -> Summary:
        """Ends the run unless each of them answers."""
        client = self.rig.motte.client
        said = [client.ask("exec", f"{tag}-{i}", 1) for tag, i in self.vms]
        return statistics.summarize([numbers(lines, "exec")[0][0] / 1e3 for lines in said])

    def delete_each(self) -> float:
        begin = time.monotonic()
        for tag, i in self.vms:
            self.rig.motte.remove(tag, i)
        return (time.monotonic() - begin) * 1e3 / len(self.vms)


def measure_level(rig: Rig, live: int, samples: int) -> Level:
    motte: list[Spawned] = []
    floor: list[Spawned] = []
    ways = [
        lambda: motte.append(rig.motte.spawn()),
        lambda: floor.append(rig.guarded.spawn()),
    ]
    in_turns(range(samples), ways)
    steps = [one.steps[0] for one in motte]
    daemon = rig.motte.daemon
    return Level(
        live,
        statistics.summarize([one.ms[0] for one in motte]),
        statistics.summarize([one.ms[0] for one in floor]),
        {name: statistics.median([told[name] for told in steps]) for name in steps[0]},
        rss_kib(daemon.front_pid),
        rss_kib(daemon.pid),
        tables_kib(),
    )


def measure(rig: Rig, quick: bool) -> Crowd:
    levels = QUICK_LEVELS if quick else LEVELS
    require_room(levels[-1])
    free = meminfo_mib("MemAvailable")
    found: list[Level] = []
    living = Living(rig)
    for live in levels:
        living.grow(live)
        rig.guarded.fill_tables(live)
        found.append(measure_level(rig, live, QUICK_SAMPLES if quick else SAMPLES))
    used = free - meminfo_mib("MemAvailable")
    execs = living.exec_each()
    delete_ms = living.delete_each()
    return Crowd(found, execs, used, delete_ms)


# ---- for people ----------------------------------------------------------------------------------


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rows(crowd: Crowd) -> list[list[str]]:
    steps = list(crowd.levels[0].steps)
    head = ["live VMs", "spawn p50: ms", "p99", "floor 2 p50", "p99", *steps]
    head += ["front: MiB", "root half: MiB", "rule tables: MiB"]
    return [
        head,
        *(
            [
                str(one.live),
                *map(number, (one.motte.p50, one.motte.p99, one.floor.p50, one.floor.p99)),
                *(number(one.steps[step]) for step in steps),
                *(number(kib / 1024) for kib in (one.front_kib, one.root_kib, one.tables_kib)),
            ]
            for one in crowd.levels
        ),
    ]


def verdicts(crowd: Crowd) -> list[str]:
    first, last = crowd.levels[0], crowd.levels[-1]
    both = last.front_kib + last.root_kib
    beyond, limit = both - last.tables_kib, BASE_KIB + VM_KIB * last.live
    ratio, floor = last.motte.p99 / first.motte.p99, last.floor.p99 / first.floor.p99
    return [
        f"{last.live} VMs: each answered an exec, p50 {number(crowd.execs.p50)} ms, p99 "
        f"{number(crowd.execs.p99)} ms; they take {crowd.used_mib / last.live:.1f} MiB of the host "
        f"each; deleting takes {number(crowd.delete_ms)} ms each.",
        f"Both halves: {both / 1024:.1f} MiB, {beyond / 1024:.1f} beyond the kernel's rule tables; "
        f"target ≤ {limit / 1024:.1f}: {'met' if beyond <= limit else 'missed'}.",
        f"p99 of a spawn: {ratio:.2f} times that at {first.live} (floor 2: {floor:.2f}); target "
        f"≤ 2: {'met' if ratio <= 2 else 'missed'}.",
    ]


def text(crowd: Crowd) -> str:
    lines = rows(crowd)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = (
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join([*table, "", *verdicts(crowd)])


def markdown(crowd: Crowd) -> str:
    lines = rows(crowd)
    lines.insert(1, ["---"] * len(lines[0]))
    table = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([*table, "", *(f"- {line}" for line in verdicts(crowd))])
