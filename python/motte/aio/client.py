"""One service, for asyncio. sync/client.py is made from this by make_sync.py."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO, Self, TypeVar, Unpack

import httpx

from .. import calls
from ..call import Call, Page, raise_for_problem
from ..calls import VmOptions
from ..coming import Coming  # async only
from ..connection import Tries, place
from ..errors import TooMuch
from ..events import Event, Events
from ..models import (
    AuditEntry,
    Capabilities,
    Images,
    MissedEvents,
    Snapshot,
)
from ..output import entry_of
from ..problems import Conflict, Unavailable
from .vm import AsyncVm

T = TypeVar("T")
PIECE = 1 << 16


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


class AsyncMotte:
    """One service. `address`: the path of its Unix socket, or https://HOST:PORT with a `token`, and
    `ca`, a file with who signed its certificate (defaults: MOTTE_ADDRESS, MOTTE_TOKEN and MOTTE_CA,
    then /run/motte/motte.sock). An answer may take `timeout_s`, that of a command as much longer as
    the command may. What fails on the way or for want of room is sent again for `retry_s`."""

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        ca: str | None = None,
        timeout_s: float = 300,
        retry_s: float = 5,
    ) -> None:
        self._place = place(address, token, ca)
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self._place.socket, verify=self._place.tls),
            base_url=self._place.url,
            headers=self._place.headers,
            trust_env=False,
        )
        # sync only: weakref.finalize(self, self._http.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    async def close(self) -> None:
        """Ends the connections; VMs stay."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, call: Call[T]) -> T:
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                arguments = tries.arguments()
                if isinstance(call.content, Path):
                    arguments["content"] = _pieces(call.content)
                response = await self._http.request(**arguments)
                raise_for_problem(response)
                return call.read(response)
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                await asyncio.sleep(tries.pause_after(failure))

    async def walk(self, page: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        """Everything that is on the pages, which are asked for one by one."""
        told = await self.send(page(None))
        while True:
            for item in told.items:
                yield item
            if told.next_cursor is None:
                return
            told = await self.send(page(told.next_cursor))

    async def save(self, call: Call[None], file: BinaryIO, most: int | None = None) -> None:
        """All of an answer's body, and nothing else, into a file. TooMuch: beyond `most` bytes."""
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                file.seek(0)
                file.truncate()
                async with self._http.stream(**tries.arguments()) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise_for_problem(response)
                    async for piece in response.aiter_raw():
                        if most is not None and file.tell() + len(piece) > most:
                            raise TooMuch(f"more than {most} bytes")
                        file.write(piece)
                return
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                await asyncio.sleep(tries.pause_after(failure))

    async def follow(self, call: Call[None], *, ends: bool = False) -> AsyncGenerator[Event, None]:
        """Server-sent events, without end but for that of the whole stream: where a connection is
        lost the next goes on behind the last event. `ends`: an answer that is whole is all."""
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                async with self._http.stream(**tries.arguments()) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise_for_problem(response)
                        return
                    events = Events()
                    async for piece in response.aiter_raw():
                        for event in events.feed(piece):
                            tries.went_well(event.id)
                            yield event
                if ends:
                    return
                raise httpx.RemoteProtocolError("the stream stopped")
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                await asyncio.sleep(tries.pause_after(failure))

    # -- VMs ------------------------------------------------------------------------------------

    async def _create(self, options: VmOptions) -> "AsyncVm":
        return AsyncVm(self, await self.send(calls.create_vm(options, respond_async=False)))

    # sync only: def vm(self, **options: Unpack[VmOptions]) -> "Vm":
    def vm(self, **options: Unpack[VmOptions]) -> "Coming[AsyncVm]":  # async only
        """A new VM that takes commands. A `with` deletes it at its end."""
        return Coming(self._create(options))  # async only
        # sync only: return self._create(options)

    async def begin(self, **options: Unpack[VmOptions]) -> "AsyncVm":
        """A VM that is being made, as soon as it is admitted: its wait() tells when it runs."""
        return AsyncVm(self, await self.send(calls.create_vm(options, respond_async=True)))

    async def get(self, vm_id: str) -> "AsyncVm":
        return AsyncVm(self, await self.send(calls.get_vm(vm_id)))

    async def vms(
        self, *, label: str | None = None, state: str | None = None
    ) -> AsyncIterator["AsyncVm"]:
        """All of yours that have not ended. `label`: `key=value` or `key`."""
        async for info in self.walk(lambda cursor: calls.list_vms(label, state, cursor)):
            yield AsyncVm(self, info)

    async def events(
        self,
        *,
        after: int | None = None,
        vm: str | None = None,
        kinds: Sequence[str] = (),
        follow: bool = True,
    ) -> AsyncIterator[AuditEntry | MissedEvents]:
        """What happens to your VMs, from now on, or behind the event whose `seq` is `after` (0: all
        that is kept). `vm`: only to those with this id; `kinds`: only this. It goes on over lost
        connections and restarts of the service within `retry_s`. `follow=False`: it ends where
        nothing more has happened."""
        call = calls.watch_events(after, vm, kinds, follow)
        async with aclosing(self.follow(call, ends=not follow)) as events:
            async for event in events:
                if (entry := entry_of(event)) is not None:
                    yield entry

    # -- snapshots, and what the host has ---------------------------------------------------------

    def snapshots(self, *, label: str | None = None) -> AsyncIterator[Snapshot]:
        """`label`: `key=value` or `key`."""
        return self.walk(lambda cursor: calls.list_snapshots(label, cursor))

    async def snapshot(self, snapshot_id: str) -> Snapshot:
        return await self.send(calls.get_snapshot(snapshot_id))

    async def delete_snapshot(self, snapshot: str | Snapshot) -> None:
        snapshot_id = snapshot if isinstance(snapshot, str) else snapshot.id
        await self.send(calls.delete_snapshot(snapshot_id))

    async def images(self) -> Images:
        return await self.send(calls.list_images())

    async def capabilities(self) -> Capabilities:
        return await self.send(calls.get_capabilities())
