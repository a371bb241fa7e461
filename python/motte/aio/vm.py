"""One VM, for asyncio. sync/vm.py is made from this by make_sync.py."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from .. import calls, exec_calls, file_calls
from ..call import Call
from ..calls import ExecOptions, ForkOptions
from ..errors import CommandFailed, MotteError
from ..exec_calls import ExecSpec
from ..handle import Handle
from ..models import (
    AuditEntry,
    ExecResult,
    FileEntry,
    IsolationReport,
    Snapshot,
    UnpackedArchive,
    VmInfo,
    VmStats,
    WrittenFile,
)
from ..output import Chunk, Kept, chunk_of, instance_of
from ..problems import InvalidRequest
from .exec import AsyncExec

if TYPE_CHECKING:
    from .client import AsyncMotte


class AsyncVm(Handle):
    """One VM, by its id. `info` is what was told of it last."""

    def __init__(self, motte: "AsyncMotte", info: VmInfo) -> None:
        super().__init__(info)
        self._motte = motte

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, why: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            await self.delete()
        except MotteError as failure:
            if why is None:
                raise
            why.add_note(f"and {self.id} could not be deleted: {failure}")

    async def refresh(self) -> VmInfo:
        return self._keep(await self._motte.send(calls.get_vm(self.id)))

    async def delete(self) -> None:
        """Nothing is left of it then; it may have ended already."""
        await self._motte.send(calls.delete_vm(self.id))

    async def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = False,
        on_output: Callable[[Chunk], None] | None = None,
        **options: Unpack[ExecOptions],
    ) -> ExecResult:
        """Runs a command (a string: in a shell; a sequence: a program and its arguments) and waits
        for its end. `check`: CommandFailed unless it exits with 0. `on_output` is called with what
        it writes, as it writes it, also where the connection is lost meanwhile; if it raises, the
        command is ended."""
        if on_output is None:
            result = await self._motte.send(calls.exec_in_vm(self.id, command, options))
        else:
            result = await self._watched(command, on_output, options)
        if check and result.exit_code != 0:
            raise CommandFailed(result)
        return result

    async def _watched(
        self,
        command: str | Sequence[str],
        on_output: Callable[[Chunk], None],
        options: ExecOptions,
    ) -> ExecResult:
        kept = Kept()
        async with await self.exec(command, **options) as running:
            async for chunk in running.output():
                on_output(chunk)
                kept.add(chunk)
            return kept.result(running.info)

    async def exec(self, command: str | Sequence[str], **options: Unpack[ExecSpec]) -> AsyncExec:
        """Begins a command that can be watched, fed and ended."""
        begun = await self._motte.send(exec_calls.create_exec(self.id, command, options))
        return AsyncExec(self._motte, begun)

    async def execs(self) -> list[AsyncExec]:
        """Its commands, newest first: those that run, and the last that ended."""
        told = await self._motte.send(exec_calls.list_execs(self.id))
        return [AsyncExec(self._motte, info) for info in told.items]

    async def write_file(
        self, path: str, data: str | bytes, *, mode: int | None = None, parents: bool = False
    ) -> WrittenFile:
        """All of it is there then, or nothing is changed. `mode`: 0o644 if not given. `parents`:
        makes the directories that lead to it."""
        data = data.encode() if isinstance(data, str) else data
        return await self._motte.send(file_calls.put_file(self.id, path, data, mode, parents))

    async def read_file(self, path: str, *, most: int | None = None) -> bytes:
        """`most`: only so many bytes, from its beginning."""
        try:
            return await self._motte.send(file_calls.get_file(self.id, path, most))
        except InvalidRequest as failure:
            if most is None or failure.code != "range_not_satisfiable":
                raise
            return b""  # an empty file has no first bytes

    async def upload(
        self, source: str | Path, path: str, *, mode: int | None = None, parents: bool = False
    ) -> WrittenFile:
        """write_file() of a file here, piece by piece."""
        call = file_calls.put_file(self.id, path, Path(source), mode, parents)
        return await self._motte.send(call)

    async def download(self, path: str, target: str | Path, *, most: int | None = None) -> None:
        """read_file() into a file here, piece by piece; until all came it has another name.
        `most`: TooMuch, and no file, where there are more bytes."""
        await self._save(file_calls.save_file(self.id, path), Path(target), most)

    async def upload_archive(
        self, source: str | Path, path: str, *, parents: bool = False
    ) -> UnpackedArchive:
        """Unpacks a tar archive from here into a directory, which is made if it is not there."""
        call = file_calls.put_archive(self.id, path, Path(source), parents)
        return await self._motte.send(call)

    async def download_archive(
        self, path: str, target: str | Path, *, most: int | None = None
    ) -> None:
        """A directory as a tar archive, into a file here. Unpack it as what a stranger sent: with
        tarfile's `filter="data"`, which Python has from 3.11.4 on."""
        await self._save(file_calls.save_archive(self.id, path), Path(target), most)

    async def _save(self, call: Call[None], target: Path, most: int | None) -> None:
        part = target.with_name(f".{target.name}.{self.info.instance}.part")
        try:
            with part.open("wb") as file:
                await self._motte.save(call, file, most)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    async def delete_file(self, path: str, *, recursive: bool = False) -> None:
        """Or an empty directory; `recursive`: or one with all that is in it, links not followed."""
        await self._motte.send(file_calls.delete_file(self.id, path, recursive))

    def files(self, path: str) -> AsyncIterator[FileEntry]:
        """What is in a directory, by name."""
        return self._motte.walk(lambda cursor: file_calls.list_files(self.id, path, cursor))

    async def wait(self, state: str = "running", timeout_s: float = 60) -> VmInfo:
        """Until it is in this state or time is over: look at `state` of what comes. VmGone, which
        has its certificate, as soon as it has ended."""
        ends = time.monotonic() + timeout_s
        while True:
            left = max(0, ends - time.monotonic())
            self._keep(await self._motte.send(calls.wait_for_vm(self.id, state, left)))
            if self.info.state == state or time.monotonic() >= ends:
                return self.info

    async def update(
        self, *, labels: Mapping[str, str | None] | None = None, ttl_s: int | None = None
    ) -> VmInfo:
        """Labels that are not named stay, those that are None go; `ttl_s` counts from now."""
        return self._keep(await self._motte.send(calls.patch_vm(self.id, labels, ttl_s)))

    async def keepalive(self, ttl_s: int | None = None) -> VmInfo:
        """It lives for `ttl_s` from now (default: as long as it was made for)."""
        return self._keep(await self._motte.send(calls.keep_vm_alive(self.id, ttl_s)))

    async def pause(self) -> VmInfo:
        return self._keep(await self._motte.send(calls.pause_vm(self.id)))

    async def resume(self) -> VmInfo:
        return self._keep(await self._motte.send(calls.resume_vm(self.id)))

    async def snapshot(self, labels: Mapping[str, str] | None = None) -> Snapshot:
        """Keeps it as it is now, for vm(snapshot=…)."""
        return await self._motte.send(calls.snapshot_vm(self.id, labels))

    async def fork(self, **options: Unpack[ForkOptions]) -> list["AsyncVm"]:
        """VMs that go on from where this one is: all that were asked for, or none."""
        told = await self._motte.send(calls.fork_vm(self.id, options))
        return [AsyncVm(self._motte, info) for info in told.items]

    async def stats(self) -> VmStats:
        """What it takes of its host now."""
        return await self._motte.send(calls.get_vm_stats(self.id))

    async def isolation(self) -> IsolationReport:
        return await self._motte.send(calls.get_isolation(self.id))

    async def console(self) -> str:
        """What its guest and its VMM wrote last, 8 KiB at most: the word of untrusted code."""
        told = await self._motte.send(calls.get_console(self.id))
        self._same(told.instance)
        return told.console

    async def follow_console(self) -> AsyncIterator[Chunk]:
        """From the oldest byte that is kept on, until the VM ends. A connection that is lost is
        made anew, and no byte comes twice or is missed; VmGone if the VM ended meanwhile."""
        call = calls.follow_console(self.id)
        await self.refresh()
        async with aclosing(self._motte.follow(call)) as events:
            async for event in events:
                if event.name == "end":
                    self._same(instance_of(event))
                    return
                if (chunk := chunk_of(event)) is None:
                    continue
                if chunk.dropped_bytes is None:
                    await self.refresh()  # it may be another VM's console from here on
                yield chunk

    def audit(self) -> AsyncIterator[AuditEntry]:
        """Oldest first."""
        return self._motte.walk(lambda cursor: calls.get_audit(self.id, cursor))
