"""A command that runs in a VM, for asyncio. sync/exec.py is made from this by make_sync.py."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from .. import exec_calls
from ..models import ExecInfo, ExecOutput
from ..output import Chunk, chunk_of, record_of

if TYPE_CHECKING:
    from .client import AsyncMotte

INPUT_MAX = 128 << 10  # a request; the service takes 256 KiB that wait to be read


class AsyncExec:
    """`info` is what was told of it last. A `with` ends it at its end, with all it started."""

    def __init__(self, motte: "AsyncMotte", info: ExecInfo) -> None:
        self._motte = motte
        self._ids = (info.vm_id, info.id)
        self.info = info
        self._offset = info.stdin_bytes

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.info.state!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.info.state == "running":
            await self.kill()

    async def refresh(self) -> ExecOutput:
        """With what is kept of its output."""
        told = await self._motte.send(exec_calls.get_exec(self._ids))
        self.info = told
        return told

    async def output(self) -> AsyncIterator[Chunk]:
        """What it writes, from the oldest byte that is kept on, until it ends; `info` tells how
        then. A connection that is lost is made anew, and no byte comes twice or is missed."""
        async with aclosing(self._motte.follow(exec_calls.watch_exec(self._ids))) as events:
            async for event in events:
                if event.name == "end":
                    self.info = record_of(event)
                    return
                if (chunk := chunk_of(event)) is not None:
                    yield chunk
        await self.refresh()

    async def wait(self) -> ExecInfo:
        """Until it ends."""
        async for _ in self.output():
            pass
        return self.info

    async def write(self, data: str | bytes, *, end: bool = False) -> None:
        """Gives it more input; `end`: and no more after that. Unavailable if it does not read what
        it was given before. One writer at a time."""
        left = data.encode() if isinstance(data, str) else data
        offset = self._offset
        while left or end:
            piece, left = left[:INPUT_MAX], left[INPUT_MAX:]
            last = end and not left
            call = exec_calls.feed_exec(self._ids, offset, piece, last)
            offset = self._offset = (await self._motte.send(call)).offset
            if last:
                return

    async def resize(self, rows: int, cols: int) -> None:
        """Of its terminal."""
        await self._motte.send(exec_calls.resize_exec(self._ids, rows, cols))

    async def kill(self) -> None:
        """With all it started; it may have ended already."""
        await self._motte.send(exec_calls.kill_exec(self._ids))
