"""A motted whose system calls fail on demand (tests/kill)."""

import errno
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .backend import build_dir
from .traced import Point, TracedDaemon
from .waiting import wait_until

NO_ERRORS = {-1: "half written", -2: "no room for descriptors"}  # of tests/kill/tracer.h


def error_name(error: int) -> str:
    return NO_ERRORS.get(error) or errno.errorcode[error]


@dataclass(frozen=True)
class Fault:
    """The nth call of a name fails; sticky: from it on all that can fail in this way."""

    point: Point
    error: int
    sticky: bool = False

    @property
    def call(self) -> str:
        return self.point.name.split()[1]

    @property
    def front(self) -> bool:
        return self.point.name.startswith("front ")

    @property
    def ends(self) -> bool:
        """The root half can answer no more: it ends, and with it the front, to be started anew."""
        return self.sticky and not self.front and self.error == errno.ENOBUFS

    @property
    def silences(self) -> bool:
        """Who connects is not accepted as long as there is no descriptor, or no memory for one."""
        return self.sticky and self.front and self.error in (errno.EMFILE, errno.ENOMEM)

    def __str__(self) -> str:
        return f"{self.point}: {error_name(self.error)}{' from then on' if self.sticky else ''}"

    def order(self) -> str:
        how = "sticky" if self.sticky else "once"
        return f"fail {how} {self.point.nth} {self.error} {self.point.name}"


class FaultyDaemon(TracedDaemon):
    """The same daemon, whose tracer takes orders while it runs. `first`: the order it starts with;
    None: no tracer."""

    first: str | None = "off"
    _seen = 0
    _orders = 0

    @property
    def points_path(self) -> Path:
        return self.home / "points"

    @property
    def orders_path(self) -> Path:
        return self.home / "orders"

    def command(self) -> list[str]:
        if self.first is None:
            return super().command()
        tool = build_dir() / "tests" / "kill" / "kill_tracer"
        traced = [str(tool), str(self.points_path), f"orders:{self.orders_path}", "--"]
        return [*traced, *super().command()]

    def spawn(self, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        self.points_path.unlink(missing_ok=True)
        self.orders_path.write_text(f"{self.first}\n", encoding="utf-8")
        self._seen, self._orders = 0, 1
        return super().spawn(prefix)

    def lines(self) -> list[str]:
        return self.points_path.read_text(encoding="utf-8").splitlines()

    def tell(self, order: str) -> None:
        """Holds from when this returns."""
        temporary = self.home / "orders.new"
        temporary.write_text(f"{order}\n", encoding="utf-8")
        temporary.rename(self.orders_path)
        self._orders += 1
        os.kill(int(self.lines()[0].split()[1]), signal.SIGUSR1)
        wait_until(self._taken, 20, f"the tracer does not take {order}")

    def _taken(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"motted ended: {self.log[-300:]}")
        return f"order {self._orders}" in self.lines()

    def failed(self) -> list[str]:
        """The points that were made to fail since this was last asked."""
        lines = self.lines()
        new = [line.split(" ", 2)[2] for line in lines[self._seen :] if line.startswith("failed ")]
        self._seen = len(lines)
        return new

    def recorded(self) -> list[tuple[Point, list[int]]]:
        """Every point that can fail, and how, in order."""
        seen: Counter[str] = Counter()
        found = []
        for line in self.lines():
            name, bar, errors = line.partition("|")
            if bar:
                seen[name] += 1
                usable = [int(error) for error in errors.split() if int(error) != 0]
                found.append((Point(name, seen[name]), usable))
        return found

    def purge(self) -> None:
        self.first = None
        super().purge()
        self.first = "off"

    def close(self) -> None:
        self.first = None
        super().close()
