"""One service. Made from aio/client.py by make_sync.py."""

import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Self, TypeVar, Unpack

import httpx

from .. import calls
from ..call import Call, Page, raise_for_problem
from ..calls import VmOptions
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
from .vm import Vm

T = TypeVar("T")
PIECE = 1 << 16


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


class Motte:
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
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=self._place.socket, verify=self._place.tls),
            base_url=self._place.url,
            headers=self._place.headers,
            trust_env=False,
        )
        weakref.finalize(self, self._http.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    def close(self) -> None:
        """Ends the connections; VMs stay."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, call: Call[T]) -> T:
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                arguments = tries.arguments()
                if isinstance(call.content, Path):
                    arguments["content"] = _pieces(call.content)
                response = self._http.request(**arguments)
                raise_for_problem(response)
                return call.read(response)
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                time.sleep(tries.pause_after(failure))

    def walk(self, page: Callable[[str | None], Call[Page[T]]]) -> Iterator[T]:
        """Everything that is on the pages, which are asked for one by one."""
        told = self.send(page(None))
        while True:
            yield from told.items
            if told.next_cursor is None:
                return
            told = self.send(page(told.next_cursor))

    def save(self, call: Call[None], file: BinaryIO, most: int | None = None) -> None:
        """All of an answer's body, and nothing else, into a file. TooMuch: beyond `most` bytes."""
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                file.seek(0)
                file.truncate()
                with self._http.stream(**tries.arguments()) as response:
                    if response.status_code != 200:
                        response.read()
                        raise_for_problem(response)
                    for piece in response.iter_raw():
                        if most is not None and file.tell() + len(piece) > most:
                            raise TooMuch(f"more than {most} bytes")
                        file.write(piece)
                return
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                time.sleep(tries.pause_after(failure))

    def follow(self, call: Call[None], *, ends: bool = False) -> Generator[Event, None, None]:
        """Server-sent events, without end but for that of the whole stream: where a connection is
        lost the next goes on behind the last event. `ends`: an answer that is whole is all."""
        tries = Tries(call, self._place, self._timeout_s, self._retry_s)
        while True:
            try:
                with self._http.stream(**tries.arguments()) as response:
                    if response.status_code != 200:
                        response.read()
                        raise_for_problem(response)
                        return
                    events = Events()
                    for piece in response.iter_raw():
                        for event in events.feed(piece):
                            tries.went_well(event.id)
                            yield event
                if ends:
                    return
                raise httpx.RemoteProtocolError("the stream stopped")
            except (httpx.TransportError, Unavailable, Conflict) as failure:
                time.sleep(tries.pause_after(failure))

    # -- VMs ------------------------------------------------------------------------------------

    def _create(self, options: VmOptions) -> "Vm":
        return Vm(self, self.send(calls.create_vm(options, respond_async=False)))

    def vm(self, **options: Unpack[VmOptions]) -> "Vm":
        """A new VM that takes commands. A `with` deletes it at its end."""
        return self._create(options)

    def begin(self, **options: Unpack[VmOptions]) -> "Vm":
        """A VM that is being made, as soon as it is admitted: its wait() tells when it runs."""
        return Vm(self, self.send(calls.create_vm(options, respond_async=True)))

    def get(self, vm_id: str) -> "Vm":
        return Vm(self, self.send(calls.get_vm(vm_id)))

    def vms(self, *, label: str | None = None, state: str | None = None) -> Iterator["Vm"]:
        """All of yours that have not ended. `label`: `key=value` or `key`."""
        for info in self.walk(lambda cursor: calls.list_vms(label, state, cursor)):
            yield Vm(self, info)

    def events(
        self,
        *,
        after: int | None = None,
        vm: str | None = None,
        kinds: Sequence[str] = (),
        follow: bool = True,
    ) -> Iterator[AuditEntry | MissedEvents]:
        """What happens to your VMs, from now on, or behind the event whose `seq` is `after` (0: all
        that is kept). `vm`: only to those with this id; `kinds`: only this. It goes on over lost
        connections and restarts of the service within `retry_s`. `follow=False`: it ends where
        nothing more has happened."""
        call = calls.watch_events(after, vm, kinds, follow)
        with closing(self.follow(call, ends=not follow)) as events:
            for event in events:
                if (entry := entry_of(event)) is not None:
                    yield entry

    # -- snapshots, and what the host has ---------------------------------------------------------

    def snapshots(self, *, label: str | None = None) -> Iterator[Snapshot]:
        """`label`: `key=value` or `key`."""
        return self.walk(lambda cursor: calls.list_snapshots(label, cursor))

    def snapshot(self, snapshot_id: str) -> Snapshot:
        return self.send(calls.get_snapshot(snapshot_id))

    def delete_snapshot(self, snapshot: str | Snapshot) -> None:
        snapshot_id = snapshot if isinstance(snapshot, str) else snapshot.id
        self.send(calls.delete_snapshot(snapshot_id))

    def images(self) -> Images:
        return self.send(calls.list_images())

    def capabilities(self) -> Capabilities:
        return self.send(calls.get_capabilities())
