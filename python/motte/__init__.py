"""Client of Motte, which gives every agent a microVM of its own.

    with Motte().vm(image="python") as vm:
        print(vm.run("python3 -c 'print(6*7)'").stdout)

Motte waits, AsyncMotte is for asyncio; both offer the same. errors.py and problems.py have what can
go wrong, models.py what the service tells.
"""

from .aio.client import AsyncMotte
from .aio.exec import AsyncExec
from .aio.vm import AsyncVm
from .errors import BadAnswer, CommandFailed, MotteError, TooMuch, Unreachable, VmReplaced
from .models import (
    AuditEntry,
    Capabilities,
    Certificate,
    ExecInfo,
    ExecOutput,
    ExecResult,
    FileEntry,
    Firewall,
    Idle,
    Image,
    Images,
    IsolationLine,
    IsolationReport,
    MissedEvents,
    Outputs,
    Pty,
    Snapshot,
    Tenant,
    Timing,
    UnpackedArchive,
    VmInfo,
    VmStats,
    WrittenFile,
)
from .output import Chunk
from .problems import (
    ApiError,
    CommandLost,
    CommandTimeout,
    Conflict,
    GuestError,
    HostError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Problem,
    Unavailable,
    VmGone,
)
from .sync.client import Motte
from .sync.exec import Exec
from .sync.vm import Vm

__all__ = [
    "ApiError", "AsyncExec", "AsyncMotte", "AsyncVm", "AuditEntry", "BadAnswer", "Capabilities",
    "Certificate", "Chunk", "CommandFailed", "CommandLost", "CommandTimeout", "Conflict",
    "Exec", "ExecInfo", "ExecOutput", "ExecResult", "FileEntry", "Firewall", "GuestError",
    "HostError", "Idle", "Image", "Images", "InvalidRequest", "IsolationLine", "IsolationReport",
    "MissedEvents", "Motte", "MotteError", "NotAllowed", "NotFound", "Outputs", "Problem", "Pty",
    "Snapshot", "Tenant", "Timing", "TooMuch", "Unavailable", "UnpackedArchive", "Unreachable",
    "Vm", "VmGone", "VmInfo", "VmReplaced", "VmStats", "WrittenFile",
]  # fmt: skip
