"""Machines and their clones without motted: the VMM is driven directly, so that a test sees what
the guest alone does after a restore."""

import array
import contextlib
import fcntl
import json
import os
import secrets
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import httpx

from harness.agent import SerialSession, Session, VsockSession, dial
from harness.backend import build_dir, guest_dir
from harness.waiting import wait_until

HELLO_PORT = 1025  # vsock/wire.h
INSTANCE_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def dial_when_up(path: Path, vmm: "Vmm") -> socket.socket:
    """The file of a socket is there a moment before anybody listens."""
    found: list[socket.socket] = []

    def listens() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            found.append(dial(path, 60))
        return bool(found)

    wait_until(listens, 20, f"nobody listens at {path}: {vmm.log()}")
    return found[0]


def new_instance() -> str:
    return "".join(secrets.choice(INSTANCE_LETTERS) for _ in range(20))


class Identity:
    """What a clone is told to be."""

    def __init__(self, generation: int) -> None:
        self.instance = new_instance()
        self.generation = generation
        self.hostname = self.instance[:12]
        self.machine_id = secrets.token_hex(16)
        self.token = secrets.token_bytes(16)

    def request(self, session: Session, age_ms: int = 0, **changes: object) -> dict[str, object]:
        """The restore request, with the time of now, by the quickest of three pings; as it would be
        if that had been so long ago."""
        took_s, wall_s, uptime_ms = min(self._moment(session) for _ in range(3))
        return {
            "op": "restore",
            "instance": self.instance,
            "generation": self.generation,
            "wall_ms": int((wall_s - took_s / 2) * 1000) - age_ms,
            "uptime_ms": uptime_ms - age_ms,
            "entropy": secrets.token_hex(64),
            "hostname": self.hostname,
            "machine_id": self.machine_id,
            "token": self.token.hex(),
            **changes,
        }

    @staticmethod
    def _moment(session: Session) -> tuple[float, float, int]:
        began = time.monotonic()
        uptime_ms = session.uptime_ms()
        return time.monotonic() - began, time.time(), uptime_ms


class Vmm:
    """A process that ends with the test."""

    def __init__(self, folder: Path, argv: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        folder.mkdir()
        self.folder = folder
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=pass_fds,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


# ---- Firecracker with the test guest ----


class Firecracker(Vmm):
    """Not started yet, and nobody calls; `hello_from()` takes the guest's call."""

    MEMORY_MIB = 32

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["firecracker", "--id", "clone", "--api-sock", "api.sock"])
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / f"v.sock_{HELLO_PORT}"))
        self.listener.listen()
        self.listener.settimeout(20)
        dial_when_up(folder / "api.sock", self).close()
        transport = httpx.HTTPTransport(uds=str(folder / "api.sock"))
        self.api = httpx.Client(transport=transport, base_url="http://vmm", timeout=30)

    def end(self) -> None:
        super().end()
        self.api.close()
        self.listener.close()

    def put(self, path: str, **body: object) -> None:
        answer = self.api.put(path, json=body)
        assert answer.is_success, f"{path}: {answer.text}"

    def state(self, name: str) -> None:
        answer = self.api.patch("/vm", json={"state": name})
        assert answer.is_success, answer.text

    def source(self) -> dict[str, str]:
        return {
            "kernel_image_path": str(build_dir() / "tests" / "guest" / "testguest.elf"),
            "boot_args": "",
        }

    def boot(self, instance: str, more: str = "") -> None:
        source = self.source()
        source["boot_args"] += f" motte.instance={instance} {more}"
        self.put(
            "/machine-config", vcpu_count=1, mem_size_mib=self.MEMORY_MIB, track_dirty_pages=True
        )  # fmt: skip
        self.put("/boot-source", **source)
        self.put("/vsock", guest_cid=3, uds_path="v.sock")
        self.put("/actions", action_type="InstanceStart")

    def snapshot(self, to: Path, kind: str = "Diff") -> None:
        """Pauses first, and leaves it paused. A first "Diff" since boot is small and whole."""
        self.state("Paused")
        self.put(
            "/snapshot/create", snapshot_type=kind, snapshot_path=f"{to}.state",
            mem_file_path=f"{to}.memory",
        )  # fmt: skip

    def load(self, snapshot: Path) -> None:
        self.put(
            "/snapshot/load", snapshot_path=f"{snapshot}.state", resume_vm=True,
            mem_backend={"backend_type": "File", "backend_path": f"{snapshot}.memory"},
        )  # fmt: skip

    def hello_from(self) -> tuple[Session, dict[str, Any]]:
        sock, _ = self.listener.accept()
        sock.settimeout(20)
        session = Session(sock)
        return session, session.greet()

    def session(self) -> VsockSession:
        return VsockSession(self.folder / "v.sock", 20)


# ---- with Linux ----


class LinuxTemplate(ABC):
    """A Linux guest that becomes a snapshot, and clones of it. `token` is what opens sessions with
    the template on serial ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance, self.token = new_instance(), os.urandom(16)
        self.clones = 0

    @abstractmethod
    def boot(self) -> "LinuxMachine": ...

    @abstractmethod
    def snapshot(self, machine: "LinuxMachine") -> None:
        """The machine has ended then."""

    @abstractmethod
    def clone(self) -> "LinuxMachine": ...

    @abstractmethod
    def close(self) -> None: ...


class LinuxMachine(Protocol):
    def service(self, token: bytes, number: int = 1) -> Session:
        """A session for requests; of serial ports, the one of this number."""

    def restore(self, token: bytes, identity: Identity, age_ms: int = 0) -> dict[str, Any] | None:
        """The agent's answer; None: it got lost on the way."""

    def hello(self, token: bytes) -> dict[str, Any]:
        """That the agent says after boot or restore."""

    def end(self) -> None: ...


class FirecrackerLinux(Firecracker):
    MEMORY_MIB = 256

    def source(self) -> dict[str, str]:
        self.put(
            "/drives/image", drive_id="image", path_on_host=str(guest_dir() / "python.sqfs"),
            is_root_device=False, is_read_only=True,
        )  # fmt: skip
        kernel = guest_dir() / "kernel"
        given = (kernel / "boot_args").read_text(encoding="utf-8").strip()
        return {
            "kernel_image_path": str(kernel / "vmlinux"),
            "initrd_path": str(kernel / "initrd"),
            "boot_args": f"reboot=k panic=-1 pci=off quiet loglevel=1 8250.nr_uarts=0 {given}",
        }

    def service(self, token: bytes, number: int = 1) -> Session:
        return self.session()

    def restore(self, token: bytes, identity: Identity, age_ms: int = 0) -> dict[str, Any] | None:
        """As vsock_restore_hybrid() does: a connection may be cut at any time, by the reset of the
        transport, or by what the guest still sends for an old one with the same ports."""
        told: list[dict[str, Any] | None] = []

        def restored() -> bool:
            cut = contextlib.suppress(ConnectionResetError, BrokenPipeError)
            with cut, self.session() as session:
                answer = session.call(**identity.request(session, age_ms))
                if not answer["ok"]:
                    assert answer["error"]["code"] == "old_generation", answer
                    assert session.ask(op="hello")["instance"] == identity.instance
                told.append(answer if answer["ok"] else None)
            return bool(told)

        wait_until(restored, 60, "the agent takes no restore")
        return told[0]

    def hello(self, token: bytes) -> dict[str, Any]:
        session, hello = self.hello_from()
        session.sock.close()
        return hello


class FirecrackerTemplate(LinuxTemplate):
    def boot(self) -> FirecrackerLinux:
        machine = FirecrackerLinux(self.folder / "template")
        machine.boot(self.instance)
        machine.hello(self.token)
        return machine

    def snapshot(self, machine: LinuxMachine) -> None:
        assert isinstance(machine, FirecrackerLinux)
        machine.snapshot(self.folder / "snapshot")
        machine.end()

    def clone(self) -> FirecrackerLinux:
        self.clones += 1
        machine = FirecrackerLinux(self.folder / f"clone-{self.clones}")
        machine.load(self.folder / "snapshot")
        return machine

    def close(self) -> None:
        """All of it is files."""


class Qemu(Vmm):
    """The RAM is the memory file `ram`, shared by a template, private to a clone. A clone waits to
    be loaded."""

    MEMORY_MIB = 256
    PORTS = 3

    def __init__(self, folder: Path, ram: int, boot_args: str | None = None) -> None:
        kernel = guest_dir() / "kernel"
        share = "off" if boot_args is None else "on"
        argv = [
            "qemu-system-x86_64", "-M", "microvm,acpi=on,memory-backend=ram",
            "-accel", "tcg,tb-size=64", "-cpu", "max", "-m", str(self.MEMORY_MIB), "-smp", "1",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-object", f"memory-backend-file,id=ram,size={self.MEMORY_MIB}M,"
            f"mem-path=/proc/self/fd/{ram},share={share}",
            "-drive", f"if=none,id=disk,format=raw,read-only=on,file={guest_dir() / 'python.sqfs'}",
            "-device", "virtio-blk-device,drive=disk", "-device", "virtio-serial-device",
            "-qmp", "unix:qmp,server=on,wait=off", "-serial", "file:console",
        ]  # fmt: skip
        for port in range(self.PORTS):
            argv += ["-chardev", f"socket,id=port{port},path=port.{port},server=on,wait=off"]
            argv += ["-device", f"virtserialport,chardev=port{port},name=motte.{port}"]
        if boot_args is None:
            argv += ["-S", "-incoming", "defer"]
        else:
            argv += ["-kernel", str(kernel / "vmlinux"), "-initrd", str(kernel / "initrd")]
            argv += ["-append", f"{self.arguments()} {boot_args} motte.ports={self.PORTS}"]
        super().__init__(folder, argv, (ram,))
        self.qmp = dial_when_up(folder / "qmp", self)
        self.lines = self.qmp.makefile("r", encoding="utf-8")
        self.lines.readline()
        self.monitor("qmp_capabilities")

    @staticmethod
    def arguments() -> str:
        rate = subprocess.check_output([build_dir() / "tests/nested/tsc_khz"], text=True).strip()
        given = (guest_dir() / "kernel" / "boot_args").read_text(encoding="utf-8").strip()
        return (
            "console=ttyS0 reboot=t panic=-1 quiet loglevel=1 mitigations=off init_on_alloc=0 "
            f"tsc=reliable tsc_early_khz={rate} {given}"
        )

    def end(self) -> None:
        super().end()
        self.lines.close()
        self.qmp.close()

    def monitor(self, execute: str, fd: int | None = None, **arguments: object) -> Any:
        line = json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n"
        passed = [] if fd is None else [fd]
        self.qmp.sendmsg(
            [line],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))][: len(passed)],
        )
        while True:
            answer = json.loads(self.lines.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]

    def _migration(self, path: Path, flags: int) -> None:
        only_devices = [{"capability": "x-ignore-shared", "state": True}]
        self.monitor("migrate-set-capabilities", capabilities=only_devices)
        fd = os.open(path, flags, 0o600)
        self.monitor("getfd", fd=fd, fdname="snapshot")
        os.close(fd)

    def snapshot(self, to: Path) -> None:
        """Stops it for good: its RAM belongs to the clones then."""
        self.monitor("stop")
        self._migration(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.monitor("migrate", uri="fd:snapshot")
        wait_until(lambda: bool(self.monitor("query-migrate").get("status") == "completed"), 60)
        self.end()

    def load(self, snapshot: Path) -> None:
        self._migration(snapshot, os.O_RDONLY)
        self.monitor("migrate-incoming", uri="fd:snapshot")
        wait_until(lambda: bool(self.monitor("query-status")["status"] != "inmigrate"), 60)
        self.monitor("cont")

    def session(self, port: int, token: bytes, before: bytes = b"") -> SerialSession:
        return SerialSession(self.folder / f"port.{port}", token, before)

    def service(self, token: bytes, number: int = 1) -> Session:
        return self.session(number, token)

    def restore(self, token: bytes, identity: Identity, age_ms: int = 0) -> dict[str, Any] | None:
        with self.session(1, token) as session:
            return session.ask(**identity.request(session, age_ms))

    def hello(self, token: bytes) -> dict[str, Any]:
        with self.session(0, token) as session:
            return session.greet()


class QemuTemplate(LinuxTemplate):
    """Its RAM is a memory file that is sealed once the template has ended."""

    F_ADD_SEALS, ALL_SEALS = 1033, 0xF

    def boot(self) -> Qemu:
        self.ram = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.ram, Qemu.MEMORY_MIB << 20)
        args = f"motte.instance={self.instance} motte.token={self.token.hex()}"
        return Qemu(self.folder / "template", self.ram, args)

    def snapshot(self, machine: LinuxMachine) -> None:
        assert isinstance(machine, Qemu)
        machine.snapshot(self.folder / "snapshot")
        fcntl.fcntl(self.ram, self.F_ADD_SEALS, self.ALL_SEALS)

    def clone(self) -> Qemu:
        self.clones += 1
        machine = Qemu(self.folder / f"clone-{self.clones}", self.ram)
        machine.load(self.folder / "snapshot")
        return machine

    def close(self) -> None:
        os.close(self.ram)
