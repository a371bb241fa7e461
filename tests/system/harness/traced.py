"""A motted that can be killed at any system call by which it changes something (tests/kill)."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import host
from .backend import Backend, build_dir
from .daemon import Daemon
from .waiting import wait_until


@dataclass(frozen=True)
class Point:
    """The nth time that one of the halves makes a call of this name."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name} #{self.nth}"


class Tracer:
    """What `motted` runs under. `mode`: tests/kill/tracer.c."""

    def __init__(self, log: Path, mode: str, point: Point | None = None) -> None:
        self.log = log
        self.name = f"{mode} {point}" if point is not None else mode
        log.unlink(missing_ok=True)
        tool = build_dir() / "tests" / "kill" / "kill_tracer"
        chosen = [point.name, str(point.nth)] if point is not None else []
        self.prefix = [str(tool), str(log), mode, *chosen, "--"]

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def wait(self, line: str, seconds: float = 20) -> None:
        """Until the tracer says so."""
        wait_until(lambda: line in self.lines(), seconds, f"{self.name}: not {line}")

    def arm(self) -> None:
        """From now on calls count."""
        os.kill(int(self.lines()[0].split()[1]), signal.SIGUSR1)
        self.wait("armed")

    def points(self) -> list[Point]:
        """Every point that was recorded, in order."""
        seen: Counter[str] = Counter()
        found = []
        for line in self.lines():
            if line.startswith(("root ", "front ", "child ")):
                seen[line] += 1
                found.append(Point(line, seen[line]))
        return found


class TracedDaemon(Daemon):
    """The same daemon, started under a tracer when there is one."""

    tracer: Tracer | None = None
    traced_options: Sequence[str] = ()  # besides the others, while it is traced

    def __init__(self, backend: Backend, options: Sequence[str] = ()) -> None:
        """The watchdog asks a VM it has found, and then not while the test lasts."""
        super().__init__(replace(backend, answer_timeout_ms=600_000), options)

    def start_under(self, mode: str, point: Point | None = None) -> Tracer:
        """Starts it; with a mode that kills from the start it does not get ready."""
        self.tracer = Tracer(self.home / "points", mode, point)
        self.start()
        return self.tracer

    def command(self) -> list[str]:
        if self.tracer is None:
            return super().command()
        return [*self.tracer.prefix, *super().command(), *self.traced_options]

    def start_plain(self) -> None:
        self.tracer = None
        self.start()

    def wait_gone(self, seconds: float = 30) -> None:
        """Both halves, also of one that was killed before anybody knew its front."""
        self.wait_ended()
        mine = str(self.state_dir)
        wait_until(
            lambda: not any(mine in line for line in host.command_lines("motte-front")),
            seconds,
            "motte-front outlives motted",
        )

    def close(self) -> None:
        self.tracer = None
        super().close()
