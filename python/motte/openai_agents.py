"""A VM as the sandbox of an agent of OpenAI's Agents SDK (`motte[openai-agents]`).

    sandbox = MotteSandboxClient(motte)
    run = RunConfig(sandbox=SandboxRunConfig(client=sandbox, options=MotteSandboxOptions()))
    await Runner.run(SandboxAgent(name="worker"), "…", run_config=run)

The agent's shell and file tools run in a VM that is made for the run and deleted after it. A VM
that is lost is an error, and no other is put in its place. There is no network: no exposed ports,
no mounts.
"""

import contextlib
import io
import math
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from agents.sandbox import (
    ExecTimeoutError,
    ExecTransportError,
    Manifest,
    SnapshotSpec,
    User,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceWriteTypeError,
    resolve_snapshot,
)
from agents.sandbox.errors import MountConfigError
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.runtime_helpers import (
    RESOLVE_WORKSPACE_PATH_HELPER,
    RuntimeHelperScript,
)
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.tar_workspace import shell_tar_exclude_args
from agents.sandbox.snapshot import SnapshotBase
from agents.sandbox.types import ExecResult
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, validate_tar_bytes

from .aio.client import AsyncMotte
from .aio.vm import AsyncVm
from .calls import ExecOptions, VmOptions
from .errors import MotteError, VmReplaced
from .output import KEPT_MAX, Chunk
from .problems import ApiError, CommandTimeout, NotFound, VmGone

COMMAND_MAX_S = 3600.0
READ_MAX = 64 << 20  # bytes of a file, or of a workspace as tar: what a guest says is bounded
SIGNALLED = 128  # and the signal's number, as a shell tells it


class MotteSandboxOptions(BaseSandboxClientOptions):
    """What the VM is made of; what is not given is the service's default."""

    type: Literal["motte"] = "motte"
    image: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    ttl_s: int | None = None

    def for_vm(self) -> VmOptions:
        told = self.model_dump(exclude_none=True)
        del told["type"]  # which the SDK's base puts there
        return cast(VmOptions, told)


class MotteSandboxState(SandboxSessionState):
    """Which VM it is: its id, and the instance, which no later VM has."""

    type: Literal["motte"] = "motte"
    vm_id: str
    instance: str


class _Written:
    """What a command writes, so much of each stream as an exec that is waited for keeps."""

    def __init__(self) -> None:
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._missing = False

    def add(self, chunk: Chunk) -> None:
        kept = self._streams.get(chunk.stream)
        if kept is None:
            self._missing = True
            return
        room = KEPT_MAX - len(kept)
        kept += chunk.data[:room]
        self._missing |= len(chunk.data) > room

    def result(self, exit_code: int) -> ExecResult:
        stdout, stderr = (bytes(kept) for kept in self._streams.values())
        note = b"\n[not all of the output was kept]\n" if self._missing else b""
        return ExecResult(stdout=stdout, stderr=stderr + note, exit_code=exit_code)


def _as_user(command: Sequence[str]) -> tuple[Sequence[str], ExecOptions]:
    """The SDK puts `sudo -u NAME --` first, which a guest need not have: Motte has users itself."""
    if len(command) > 4 and (command[0], command[1], command[3]) == ("sudo", "-u", "--"):
        return command[4:], ExecOptions(user=command[2])
    return command, ExecOptions()


class MotteSandboxSession(BaseSandboxSession):
    state: MotteSandboxState

    def __init__(self, state: MotteSandboxState, vm: AsyncVm) -> None:
        self.state = state
        self.vm = vm

    async def _prepare_backend_workspace(self) -> None:
        """Every command runs in the root, so it is there first."""
        await self.vm.run(["mkdir", "-p", "--", self.state.manifest.root], check=True)

    async def _shutdown_backend(self) -> None:
        await self.vm.delete()

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        """Links in the workspace may lead out of it, which only the guest sees."""
        return await self._validate_remote_path_access(path, for_write=for_write)

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        """Watched, so that a run that is cancelled ends its command."""
        argv, options = _as_user([str(word) for word in command])
        options["cwd"] = self.state.manifest.root
        options["env"] = await self.state.manifest.environment.resolve()
        seconds = min(COMMAND_MAX_S if timeout is None else timeout, COMMAND_MAX_S)
        options["timeout_ms"] = max(1, math.ceil(seconds * 1000))
        written = _Written()
        try:
            done = await self.vm.run(argv, on_output=written.add, **options)
        except CommandTimeout as late:
            raise ExecTimeoutError(command=command, timeout_s=timeout, cause=late) from late
        except MotteError as failure:
            raise _not_run(command, failure) from failure
        return written.result(_exit_code(done.exit_code, done.signal))

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        if user is not None:
            await self._check_read_with_exec(path, user=user)
        data = await self._read(path, READ_MAX + 1)
        if len(data) > READ_MAX:
            why = {"detail": f"it has more than {READ_MAX} bytes"}
            raise WorkspaceArchiveReadError(path=path, context=why, retryable=False)
        return io.BytesIO(data)

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        return await self._read(path, max_bytes)

    async def _read(self, path: Path, most: int) -> bytes:
        there = await self._validate_path_access(path)
        try:
            return await self.vm.read_file(there.as_posix(), most=most)
        except VmGone as gone:
            raise WorkspaceArchiveReadError(path=path, cause=gone, retryable=False) from gone
        except NotFound as absent:
            raise WorkspaceReadNotFoundError(path=path, cause=absent) from absent
        except MotteError as failure:
            raise WorkspaceArchiveReadError(path=path, cause=failure) from failure

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        if user is not None:
            await self._check_write_with_exec(path, user=user)
        there = await self._validate_path_access(path, for_write=True)
        await self._put(there.as_posix(), _bytes_of(data, path))

    async def _put(self, path: str, data: bytes) -> None:
        try:
            await self.vm.write_file(path, data, parents=True)
        except MotteError as failure:
            raise WorkspaceArchiveWriteError(path=Path(path), cause=failure) from failure

    async def running(self) -> bool:
        try:
            return (await self.vm.refresh()).state == "running"
        except (VmGone, VmReplaced, NotFound):
            return False

    async def persist_workspace(self) -> io.IOBase:
        """The file has no name here: what is read of it is all there is."""
        root, tar = self._workspace_root_path(), self._tar()
        left_out = " ".join(shell_tar_exclude_args(self._persist_workspace_skip_relpaths()))
        try:
            packed = await self.exec(f'tar {left_out} -C "$PWD" -cf {tar} .')
            if not packed.ok():
                told = packed.stderr.decode("utf-8", "replace")
                raise WorkspaceArchiveReadError(path=root, context={"stderr": told})
            with tempfile.TemporaryDirectory() as folder:
                await self.vm.download(tar, Path(folder, "workspace.tar"), most=READ_MAX)
                return Path(folder, "workspace.tar").open("rb")
        except MotteError as failure:
            raise WorkspaceArchiveReadError(path=root, cause=failure) from failure
        finally:
            await self._forget(tar)

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root, tar = self._workspace_root_path(), self._tar()
        packed = _bytes_of(data, root)
        try:
            validate_tar_bytes(packed, allow_external_symlink_targets=False)
        except UnsafeTarMemberError as wrong:
            told = {"member": wrong.member, "detail": str(wrong)}
            raise WorkspaceArchiveWriteError(path=root, context=told, cause=wrong) from wrong
        try:
            await self._put(tar, packed)
            unpacked = await self.exec("tar", "-xf", tar, shell=False)
        finally:
            await self._forget(tar)
        if not unpacked.ok():
            told = {"stderr": unpacked.stderr.decode("utf-8", "replace")}
            raise WorkspaceArchiveWriteError(path=root, context=told)

    async def _forget(self, tar: str) -> None:
        """What went wrong before is what is told."""
        with contextlib.suppress(MotteError):
            await self.vm.delete_file(tar)

    def _tar(self) -> str:
        return f"/tmp/workspace-{uuid.uuid4().hex}.tar"


def _exit_code(exit_code: int | None, signal: int | None) -> int:
    return exit_code if exit_code is not None else SIGNALLED + (signal or 0)


def _bytes_of(data: io.IOBase, path: Path) -> bytes:
    told = data.read()
    if isinstance(told, str):
        return told.encode()
    if isinstance(told, bytes | bytearray):
        return bytes(told)
    raise WorkspaceWriteTypeError(path=path, actual_type=type(told).__name__)


def _not_run(command: Sequence[str | Path], failure: MotteError) -> ExecTransportError:
    """Its text is Motte's, with what to do about it. Never run again by the SDK: whether it had an
    effect may not be known."""
    context: dict[str, object] = {"backend": "motte"}
    if isinstance(failure, ApiError):
        context |= {"code": failure.code, "request_id": failure.request_id}
    return ExecTransportError(
        command=command, context=context, cause=failure, message=str(failure), retryable=False
    )


class MotteSandboxClient(BaseSandboxClient[MotteSandboxOptions]):
    """`motte` stays the caller's, to be closed after the last run."""

    backend_id = "motte"
    supports_default_options = True

    def __init__(self, motte: AsyncMotte) -> None:
        self._motte = motte

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: MotteSandboxOptions | None = None,
    ) -> SandboxSession:
        manifest = self._validate_manifest_for_create(manifest or Manifest())
        if manifest.mount_targets():
            raise MountConfigError(message="a VM has no network to mount over: leave mounts out")
        vm = await self._motte.vm(**(options or MotteSandboxOptions()).for_vm())
        session_id = uuid.uuid4()
        state = MotteSandboxState(
            session_id=session_id,
            manifest=manifest,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            vm_id=vm.id,
            instance=vm.info.instance,
        )
        return self._wrap_session(MotteSandboxSession(state, vm))

    async def delete(self, session: SandboxSession) -> SandboxSession:
        await session.shutdown()
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """The VM of that state, or VmGone: what was in it is nowhere else."""
        if not isinstance(state, MotteSandboxState):
            raise TypeError(f"a session of {state.type!r} is none of Motte's")
        state.assert_path_grants_rebound()
        vm = await self._motte.get(state.vm_id)
        if vm.info.instance != state.instance:
            raise VmReplaced(f"{state.vm_id} is another VM now: that of the session has ended")
        inner = MotteSandboxSession(state, vm)
        inner._set_start_state_preserved(True)
        return self._wrap_session(inner)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        return self._deserialize_session_state_payload(payload, MotteSandboxState)
