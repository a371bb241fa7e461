"""The machines of one MCP server: the first, made when it is first needed, and forks."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Self, TypeVar, Unpack

from ..aio.client import AsyncMotte
from ..aio.vm import AsyncVm
from ..calls import VmOptions
from ..errors import MotteError

# Longer than a call may take. They are prolonged as long as the server runs: what one that was
# killed leaves behind ends by itself.
TTL_S = 4200
MACHINES_MAX = 16

T = TypeVar("T")


class NoMachine(MotteError):
    pass


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Also where who waits for it is cancelled: what it made is kept then, not lost."""
    return await asyncio.shield(asyncio.ensure_future(work))


class Machines:
    """`async with`: all of them end with it. One that is lost stays lost until reset()."""

    def __init__(self, motte: AsyncMotte, **options: Unpack[VmOptions]) -> None:
        self._ttl_s = options.setdefault("ttl_s", TTL_S)
        self._motte, self._options = motte, options
        self._first: AsyncVm | None = None
        self._forks: dict[str, AsyncVm] = {}
        self._making = asyncio.Lock()
        self._closed = False
        self._failed_reset = ""  # why
        self._prolonging: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._prolonging = asyncio.create_task(self._prolong())
        return self

    async def __aexit__(self, *_: object) -> None:
        """A server that is told to end, once or twice, still ends its machines."""
        self._closed = True
        if self._prolonging is not None:
            self._prolonging.cancel()
        ending = asyncio.ensure_future(self._close())
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)

    async def _prolong(self) -> None:
        """A client may think for longer than a machine lives."""
        while True:
            await asyncio.sleep(self._ttl_s / 4)
            for vm in self._all():
                with contextlib.suppress(MotteError):
                    await vm.keepalive(self._ttl_s)

    def _all(self) -> list[AsyncVm]:
        return [*self._forks.values(), *([self._first] if self._first else [])]

    async def _close(self) -> None:
        """One that is being made is waited for: only then it can be deleted."""
        async with self._making:
            await self._end()

    async def _end(self) -> None:
        for vm in self._all():
            await _delete(vm)
            self._forks.pop(vm.id, None)
            if vm is self._first:
                self._first = None

    def _open(self) -> None:
        if self._closed:
            raise NoMachine("the server is ending: it makes no more machines")

    async def _make(self, snapshot: str | None) -> AsyncVm:
        options = self._options.copy()
        if snapshot is not None:
            options = {"snapshot": snapshot, "ttl_s": self._ttl_s}
        return await self._motte.vm(**options)

    async def get(self, name: str | None) -> AsyncVm:
        """NoMachine, or what keepalive() raises: the VM is gone, the service does not answer."""
        vm = await _to_its_end(self._get(name))
        await vm.keepalive(self._ttl_s)
        return vm

    async def _get(self, name: str | None) -> AsyncVm:
        async with self._making:
            self._open()
            if name is None or (self._first is not None and name == self._first.id):
                if self._first is None and self._failed_reset:
                    raise NoMachine(f"reset failed: {self._failed_reset}; call reset")
                if self._first is None:
                    self._first = await self._make(None)
                return self._first
            if name not in self._forks:
                raise NoMachine(f"there is no machine {name!r} here; there is {self._known()}")
            return self._forks[name]

    def _known(self) -> str:
        ids = [*([self._first.id] if self._first else []), *self._forks]
        return ", ".join(ids) or "none yet"

    async def fork(self, vm: AsyncVm, count: int) -> list[AsyncVm]:
        return await _to_its_end(self._fork(vm, count))

    async def _fork(self, vm: AsyncVm, count: int) -> list[AsyncVm]:
        async with self._making:
            self._open()
            if len(self._forks) + count >= MACHINES_MAX:
                raise NoMachine(f"{MACHINES_MAX} machines are the most; reset ends the forks")
            forks = await vm.fork(count=count, ttl_s=self._ttl_s)
            self._forks |= {fork.id: fork for fork in forks}
            return forks

    async def reset(self, snapshot: str | None) -> AsyncVm:
        """Ends all, then makes the first anew. A snapshot that is not there changes nothing; where
        the making fails there is none until the next reset()."""
        return await _to_its_end(self._reset(snapshot))

    async def _reset(self, snapshot: str | None) -> AsyncVm:
        async with self._making:
            self._open()
            if snapshot is not None:
                await self._look_for(snapshot)
            self._failed_reset = "it was broken off"
            await self._end()
            try:
                self._first = await self._make(snapshot)
            except MotteError as why:
                self._failed_reset = str(why)
                raise
            self._failed_reset = ""
            return self._first

    async def _look_for(self, snapshot: str) -> None:
        try:
            await self._motte.snapshot(snapshot)
        except ValueError as why:  # of what is no id at all
            raise NoMachine(str(why)) from why


async def _delete(vm: AsyncVm) -> None:
    """What cannot be deleted now ends when its time is up."""
    with contextlib.suppress(MotteError):
        await vm.delete()
