"""The programs that are measured: motted and its client, the floors, the constant server."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import janitor
from harness import backend, host
from harness.backend import build_dir
from harness.daemon import UID_COUNT, Daemon, program

MEMORY_MIB = 128
CROWDED = ("--max-vms=1100", "--memory-overcommit=16")  # they touch a hundredth of it
EMULATION = backend.of("qemu")
QEMU = "qemu-system-x86_64"
FLOOR_STEPS = ("guard", "launch", "configure", "start", "hello", "connect")


class Program:
    """A program that takes commands, a line each, and says `ready` when one is done."""

    def __init__(self, *argv: str | Path, prefix: tuple[str, ...] = ()) -> None:
        self.name = Path(argv[0]).name
        self.process = subprocess.Popen(
            [*prefix, *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> list[list[str]]:
        """The words of each line up to `ready`."""
        assert self.process.stdout is not None
        lines: list[list[str]] = []
        for line in self.process.stdout:
            words = line.split()
            if words == ["ready"]:
                return lines
            lines.append(words)
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}")

    def ask(self, *words: object) -> list[list[str]]:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.wait()

    def close(self) -> None:
        """Its input ends, so it does."""
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self.process.communicate(timeout=10)
        self.process.kill()
        self.process.wait()


@dataclass
class Spawned:
    """Some VMs started at once: milliseconds each, by step, and of all together."""

    ms: list[float]
    wall_ms: float
    steps: list[dict[str, float]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # Motte's: boot, snapshot, pool


@dataclass(frozen=True)
class First:
    """A VM and its first command: until it was there, until the command had ended, and of that from
    the command's first frame to its last."""

    tag: str
    source: str
    claim_ms: float
    ms: float
    frames_ms: float


def numbers(lines: list[list[str]], kind: str) -> list[list[float]]:
    return [[float(word) for word in words[1:]] for words in lines if words[0] == kind]


class Floor:
    """bench_floor, in namespaces of its own: whatever ends it ends all its VMs."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def spawn(self, count: int = 1, snapshot: str = "") -> Spawned:
        """With a snapshot of Motte's: restored from it."""
        lines = self.program.ask(count, *([snapshot] if snapshot else []))
        vms = numbers(lines, "vm")
        steps = [dict(zip(FLOOR_STEPS, (us / 1e3 for us in vm[1:]), strict=True)) for vm in vms]
        return Spawned([vm[0] / 1e3 for vm in vms], numbers(lines, "wall")[0][0] / 1e3, steps)

    def fill_tables(self, vms: int) -> None:
        """With the chains that so many VMs more would have; they stay."""
        self.program.ask("chains", vms)


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("motte")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Motte:
    """A real motted over its Unix socket."""

    def __init__(self, daemon: Daemon, client: Program) -> None:
        self.daemon = daemon
        self.client = client
        self.number = 0

    def ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> bytes:
        connection = Unix(self.daemon.socket_path)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, target, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        if answer.status not in (200, 201, 204):
            raise RuntimeError(f"{method} {target}: {answer.status} {said!r}")
        return said

    def get(self, target: str) -> bytes:
        return self.ask("GET", target)

    def record(self, vm: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.get(f"/vms/{vm}"))
        return told

    def counted(self, family: str) -> float:
        """What GET /metrics says, of all labels."""
        lines = self.get("/metrics").decode().splitlines()
        return sum(float(one.split()[-1]) for one in lines if one.startswith(family + "{"))

    def snapshot(self, vm: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.ask("POST", f"/vms/{vm}/snapshots", {}))
        return made

    def start(
        self, count: int = 1, memory_mib: int = MEMORY_MIB, snapshot: str = ""
    ) -> tuple[str, Spawned]:
        """Their tag, for delete(); with the steps as the VMs' records tell them."""
        self.number += 1
        tag = f"bench{self.number}"
        kind = "restore" if snapshot else "spawn"
        lines = self.client.ask(kind, count, tag, snapshot or memory_mib)
        ms = [vm[0] / 1e3 for vm in numbers(lines, "vm")]
        spawned = Spawned(ms, numbers(lines, "wall")[0][0] / 1e3)
        for i in range(count):
            record = self.record(f"{tag}-{i}")
            spawned.steps.append({step["name"]: float(step["ms"]) for step in record["timings"]})
            spawned.sources.append(record["source"])
        return tag, spawned

    def first(self) -> First:
        self.number += 1
        tag = f"bench{self.number}"
        lines = self.client.ask("first", f"{tag}-0", self.daemon.backend.memory_mib)
        claim_us, us, frames_ms = numbers(lines, "first")[0]
        return First(tag, self.record(f"{tag}-0")["source"], claim_us / 1e3, us / 1e3, frames_ms)

    def delete(self, tag: str, count: int = 1) -> None:
        self.client.ask("delete", count, tag)

    def remove(self, tag: str, number: int) -> None:
        """One of them."""
        self.client.ask("remove", number, tag)

    def spawn(self, count: int = 1, snapshot: str = "") -> Spawned:
        tag, spawned = self.start(count, snapshot=snapshot)
        self.delete(tag, count)
        return spawned


@dataclass
class Rig:
    motte: Motte
    bare: Floor
    guarded: Floor
    home: Path
    bench: Path

    @contextlib.contextmanager
    def constant(self, size: int, kind: str = "") -> Iterator[tuple[Program, int]]:
        """A client of a server that answers with `size` bytes, and that server's pid. Kind
        `worker`: by way of another thread."""
        path = self.home / f"constant{kind}.sock"
        server = Program(self.bench / "http" / "bench_constant", path, str(size), kind)
        server.wait()
        client = Program(self.bench / "http" / "bench_client", path)
        try:
            yield client, server.process.pid
        finally:
            client.close()
            server.close()


def cgroup_roots(name: str) -> list[Path]:
    """In every hierarchy in which motted has one of this name."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        mount = Path(fields.split()[4])
        if tail.startswith("cgroup") and (mount / name).is_dir():
            found.append(mount)
    return found


@contextlib.contextmanager
def cgroups_beside(name: str) -> Iterator[list[Path]]:
    """Directories for a floor's VMs where motted has its own; on version 2 with its controllers."""
    made = []
    for mount in cgroup_roots(name):
        folder = mount / f"{name}-floor"
        folder.mkdir()
        made.append(folder)
        control = folder / "cgroup.subtree_control"
        if control.exists():
            control.write_text("+memory +cpu +pids")
    try:
        yield made
    finally:
        janitor.remove_cgroups(made)


@contextlib.contextmanager
def closing(thing: Program) -> Iterator[Program]:
    try:
        yield thing
    finally:
        thing.close()


def config_of(daemon: Daemon) -> Path:
    """Of what a reload changes."""
    return daemon.home / "motted.conf"


def can_emulate() -> bool:
    return shutil.which(QEMU) is not None and backend.has_linux()


class Apart(Daemon):
    """In a network of its own: two in one repair each other's firewall for ever."""

    def command(self) -> list[str]:
        return ["unshare", "--net", *super().command()]


@contextlib.contextmanager
def floor(
    daemon: Daemon, kind: str, work: Path, uid_base: int, programs: Sequence[str | Path], *more: str
) -> Iterator[Floor]:
    """Under what this motted does with its image."""
    state, backend = daemon.state_dir, daemon.backend
    argv: list[str | Path] = [
        build_dir() / "bench" / "floor" / "bench_floor", kind, work,
        state / "kernels" / backend.kernel / "vmlinux", state / "images" / backend.image / "disk",
        str(backend.memory_mib), str(uid_base), *programs, *more,
    ]  # fmt: skip
    work.mkdir(exist_ok=True)
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with closing(Program(*argv, prefix=alone)) as program:
        yield Floor(program)


def guards(daemon: Daemon, cgroups: Sequence[Path]) -> tuple[str, str]:
    return ",".join(map(str, cgroups)), str(daemon.state_dir / "snapshots")


@contextlib.contextmanager
def emulating(options: Sequence[str]) -> Iterator[tuple[Motte, Floor]]:
    """Another motted, with QEMU and Linux, beside the rig's; and the floor under it."""
    with contextlib.ExitStack() as stack:
        daemon = Apart(EMULATION, options)
        config_of(daemon).touch()
        daemon.options.append(f"--config={config_of(daemon)}")
        stack.callback(daemon.close)
        daemon.start()
        cgroups = stack.enter_context(cgroups_beside(daemon.cgroup))
        stack.enter_context(janitor.watching(daemon, [daemon.home], cgroups))
        programs: list[str | Path] = [
            program(QEMU),
            daemon.state_dir / "kernels" / EMULATION.kernel / "initrd",
        ]
        beneath = floor(
            daemon, "emulated", daemon.home / "floor", daemon.uid_base + UID_COUNT, programs,
            *guards(daemon, cgroups),
        )  # fmt: skip
        motte = Motte(daemon, stack.enter_context(closing(client_of(daemon))))
        yield motte, stack.enter_context(beneath)


def client_of(daemon: Daemon) -> Program:
    return Program(build_dir() / "bench" / "http" / "bench_client", daemon.socket_path)


@contextlib.contextmanager
def running() -> Iterator[Rig]:
    """All of it, in a network namespace of its own; removed afterwards."""
    bench = build_dir() / "bench"
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="motte-figures-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        host.enter_own_host(home / "xtables.lock")
        daemon = Daemon(backend.chosen(), CROWDED)
        config_of(daemon).touch()
        daemon.options.append(f"--config={config_of(daemon)}")
        stack.callback(janitor.remove_homes, [daemon.home])
        stack.callback(daemon.close)
        daemon.run_dir.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "mode=0755", "run", str(daemon.run_dir)], check=True
        )  # as /run is
        daemon.start()
        cgroups = stack.enter_context(cgroups_beside(daemon.cgroup))
        stack.enter_context(janitor.watching(daemon, [daemon.home, home], cgroups))

        programs = [program("firecracker"), program("jailer")]
        first = daemon.uid_base + UID_COUNT
        rig = Rig(
            Motte(daemon, stack.enter_context(closing(client_of(daemon)))),
            stack.enter_context(floor(daemon, "bare", home / "floor", first, programs)),
            stack.enter_context(
                floor(
                    daemon,
                    "guarded",
                    home / "floor",
                    first + UID_COUNT,
                    programs,
                    *guards(daemon, cgroups),
                    versions()["firecracker"],
                )
            ),
            home,
            bench,
        )
        yield rig


def output(*argv: str) -> str:
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout.strip()


def versions() -> dict[str, str]:
    said = output(program("firecracker"), "--version")
    return {
        "firecracker": said.split()[1].removeprefix("v"),
        "motte": output(str(build_dir() / "bin" / "motted"), "--version").split()[-1],
        "libmicrohttpd": output("pkg-config", "--modversion", "libmicrohttpd"),
    }


def about() -> dict[str, Any]:
    """The machine, as far as it makes figures what they are."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    modules = Path("/sys/module")
    kvm = [name for name in ("kvm_intel", "kvm_amd", "kvm_pvm") if (modules / name).exists()]
    dirty = bool(output("git", "status", "--porcelain", "--untracked-files=no"))
    return {
        "host": output("systemd-detect-virt") or "none",
        "kvm": kvm[0] if kvm else "unknown",
        "cpu": cpu[0],
        "processors": len(cpu),
        "kernel": os.uname().release,
        "commit": output("git", "rev-parse", "--short=12", "HEAD") + ("+" if dirty else ""),
        "versions": versions(),
    }
