"""A command that runs in a VM. Made from aio/exec.py by make_sync.py."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Self

from .. import exec_calls
from ..models import ExecInfo, ExecOutput
from ..output import Chunk, chunk_of, record_of

if TYPE_CHECKING:
    from .client import Motte

INPUT_MAX = 128 << 10  # a request; the service takes 256 KiB that wait to be read


class Exec:
    """`info` is what was told of it last. A `with` ends it at its end, with all it started."""

    def __init__(self, motte: "Motte", info: ExecInfo) -> None:
        self._motte = motte
        self._ids = (info.vm_id, info.id)
        self.info = info
        self._offset = info.stdin_bytes

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.info.state!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.info.state == "running":
            self.kill()

    def refresh(self) -> ExecOutput:
        """With what is kept of its output."""
        told = self._motte.send(exec_calls.get_exec(self._ids))
        self.info = told
        return told

    def output(self) -> Iterator[Chunk]:
        """What it writes, from the oldest byte that is kept on, until it ends; `info` tells how
        then. A connection that is lost is made anew, and no byte comes twice or is missed."""
        with closing(self._motte.follow(exec_calls.watch_exec(self._ids))) as events:
            for event in events:
                if event.name == "end":
                    self.info = record_of(event)
                    return
                if (chunk := chunk_of(event)) is not None:
                    yield chunk
        self.refresh()

    def wait(self) -> ExecInfo:
        """Until it ends."""
        for _ in self.output():
            pass
        return self.info

    def write(self, data: str | bytes, *, end: bool = False) -> None:
        """Gives it more input; `end`: and no more after that. Unavailable if it does not read what
        it was given before. One writer at a time."""
        left = data.encode() if isinstance(data, str) else data
        offset = self._offset
        while left or end:
            piece, left = left[:INPUT_MAX], left[INPUT_MAX:]
            last = end and not left
            call = exec_calls.feed_exec(self._ids, offset, piece, last)
            offset = self._offset = (self._motte.send(call)).offset
            if last:
                return

    def resize(self, rows: int, cols: int) -> None:
        """Of its terminal."""
        self._motte.send(exec_calls.resize_exec(self._ids, rows, cols))

    def kill(self) -> None:
        """With all it started; it may have ended already."""
        self._motte.send(exec_calls.kill_exec(self._ids))
