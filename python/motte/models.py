"""What the service tells, field for field as openapi.yaml describes it. Words from closed lists
(state, reason, kind …) are plain strings: a newer service may know more of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Idle:
    """What happens to a VM in which no command has run for `after_s` seconds."""

    after_s: int
    action: str = "delete"


@dataclass(frozen=True, slots=True)
class Timing:
    name: str
    ms: float


@dataclass(frozen=True, slots=True)
class VmInfo:
    id: str
    instance: str
    owner: str
    state: str
    reason: str | None
    message: str
    image: str
    image_digest: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    seccomp: str
    ttl_s: int
    idle: Idle | None
    on_unresponsive: str
    agent: str | None
    labels: Mapping[str, str]
    source: str
    snapshot: str | None
    hypervisor: str
    isolation: str
    without: tuple[str, ...]
    created_at: datetime | None
    expires_at: datetime | None
    timings: tuple[Timing, ...]
    guest: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class VmStats:
    """What a VM takes of its host. From its cgroup; None where the host has no such guard."""

    id: str
    instance: str
    at: datetime
    cpu_us: int
    memory_bytes: int | None
    pids: int | None
    oom_kills: int | None
    disk_bytes: int
    io_read_bytes: int | None
    io_write_bytes: int | None


@dataclass(frozen=True, slots=True)
class WrittenFile:
    path: str
    size: int
    mode: str
    sha256: str


@dataclass(frozen=True, slots=True)
class UnpackedArchive:
    """`entries`: its members; `size`: the bytes of its files; `created`: the directory is new."""

    path: str
    entries: int
    size: int
    created: bool


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Of a directory. `name` and `target` are None where their bytes are not UTF-8: those are then
    in the other field, in base64. `target`: of a symlink."""

    name: str | None
    type: str
    size: int
    mode: str
    mtime: datetime | None
    name_base64: str | None = None
    target: str | None = None
    target_base64: str | None = None


@dataclass(frozen=True, slots=True)
class Console:
    """What a guest and its VMM wrote last: the word of untrusted code."""

    id: str
    instance: str
    console: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """What remains of a VM that has ended. `console` is the word of untrusted code."""

    instance: str
    state: str
    reason: str
    message: str
    created_at: datetime
    ended_at: datetime
    console: str


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a command wrote, which is the word of untrusted code."""

    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ExecResult(Outputs):
    """How a command ended: `exit_code`, or the `signal` that ended it."""

    exit_code: int | None
    signal: int | None
    oom_killed: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    id: str
    owner: str
    vm: str
    instance: str
    image: str
    image_digest: str
    vcpus: int
    memory_mib: int
    disk_mib: int
    seccomp: str
    hypervisor: str
    bytes: int
    created_at: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    digest: str
    size_bytes: int
    kernel: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Images:
    """`default` is what a VM gets that names none."""

    default: str
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class Firewall:
    ipv4: str
    ipv6: str
    in_sync: bool


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who asks: what it may have at once (None: no limit), and what it has."""

    name: str
    max_vms: int | None
    max_vcpus: int | None
    max_memory_mib: int | None
    max_execs: int | None
    vms: int
    vcpus: int
    memory_mib: int
    execs: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    version: str
    hypervisor: str
    vmm_version: str
    emulated: bool
    isolation: str
    guards: tuple[str, ...]
    without: tuple[str, ...]
    cgroup_version: int
    cordoned: bool
    firewall: Firewall
    limits: Mapping[str, int]
    tenant: Tenant


@dataclass(frozen=True, slots=True)
class IsolationLine:
    name: str
    state: str
    value: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """`ok`: no line is `wrong` or `absent`."""

    id: str
    instance: str
    at: datetime
    ok: bool
    lines: tuple[IsolationLine, ...]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    seq: int
    at: datetime
    instance: str
    id: str
    owner: str
    kind: str
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class MissedEvents:
    """Events before `first_available` are no longer kept: of all VMs, or of the one with `id`."""

    first_available: int
    id: str | None


@dataclass(frozen=True, slots=True)
class Pty:
    """A terminal for a command."""

    rows: int = 24
    cols: int = 80


@dataclass(frozen=True, slots=True)
class ExecInfo:
    """A command's record. `state`: running, exited, or lost, where nobody knows how it ended."""

    id: str
    vm_id: str
    state: str
    started_at: datetime
    pty: bool
    output_bytes: int
    output_dropped_bytes: int
    stdin_bytes: int
    stdin_open: bool
    exit_code: int | None
    signal: int | None
    timed_out: bool
    oom_killed: bool
    killed: bool
    reason: str | None
    message: str | None
    ended_at: datetime | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class ExecOutput(ExecInfo):
    """With what is kept of what it wrote."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class InputState:
    """`offset`: where in all of a command's input the next bytes begin."""

    offset: int
    open: bool
