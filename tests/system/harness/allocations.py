"""A motted whose allocations fail on demand (tests/kill/allocations.c)."""

import mmap
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .backend import build_dir
from .traced import TracedDaemon

HALVES = ("root", "front")
LAYOUT = struct.Struct("4Qq")  # struct half: count, first, last, failed, held
ORDER = struct.Struct("4Q")
FOR_EVER = (1 << 64) - 1


@dataclass(frozen=True)
class Shortage:
    """The nth allocation of a half fails; sticky: and all that follow."""

    half: str
    nth: int
    sticky: bool = False
    call = "malloc"
    ends = silences = False

    def __str__(self) -> str:
        return f"{self.half} malloc #{self.nth}{' from then on' if self.sticky else ''}"


class ShortDaemon(TracedDaemon):
    """The same daemon, which counts its allocations and can be short of memory."""

    _page: mmap.mmap

    def spawn(self, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        path = self.home / "allocations"
        if not path.exists():
            path.write_bytes(bytes(LAYOUT.size * len(HALVES)))
            path.chmod(0o666)
            with path.open("r+b") as file:
                self._page = mmap.mmap(file.fileno(), 0)
        self._page[:] = bytes(len(self._page))
        library = build_dir() / "tests" / "kill" / "libfail_allocations.so"
        more = ["/usr/bin/env", f"LD_PRELOAD={library}", f"MOTTE_ALLOCATIONS={path}"]
        return super().spawn([*prefix, *more])

    def purge(self) -> None:
        self.order(None)
        super().purge()

    def _half(self, half: str) -> tuple[int, ...]:
        return LAYOUT.unpack_from(self._page, LAYOUT.size * HALVES.index(half))

    def count(self, half: str) -> int:
        return self._half(half)[0]

    def held(self, half: str) -> int:
        """Blocks that were allocated and not freed."""
        return self._half(half)[4]

    def order(self, shortage: Shortage | None) -> None:
        """Counting starts anew."""
        for at, half in enumerate(HALVES):
            first = last = 0
            if shortage is not None and shortage.half == half:
                first, last = shortage.nth, FOR_EVER if shortage.sticky else shortage.nth
            ORDER.pack_into(self._page, LAYOUT.size * at, 0, first, last, 0)

    def failed(self) -> int:
        """Allocations that failed since the last order."""
        return sum(self._half(half)[3] for half in HALVES)
