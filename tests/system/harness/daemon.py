"""A real motted with directories, cgroup and uids of its own."""

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from . import host
from .backend import Backend, build_dir, guest_dir
from .waiting import wait_until

UID_BASE = 1879048192
UID_COUNT = 65536
FRONT_USER = "nobody"


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not on PATH: deploy/fetch-firecracker.sh fetches it")
    return path


class Daemon:
    """start() returns when the front has said READY=1; stop() when both halves have ended."""

    _number = 0

    def __init__(self, backend: Backend, options: Sequence[str] = ()) -> None:
        Daemon._number += 1
        self.backend = backend
        self.options = list(options)
        self.bin = build_dir() / "bin"
        self.home = Path(tempfile.mkdtemp(prefix="motte-", dir="/tmp"))
        self.home.chmod(0o755)
        self.run_dir = self.home / "run"
        self.state_dir = self.home / "state"
        self.log_path = self.home / "log"
        self.cgroup = f"motte-{os.getpid()}-{Daemon._number}"
        # A range of its own, so that runs side by side do not meet.
        slot = (os.getpid() * 521 + Daemon._number) % 8000
        self.uid_base = UID_BASE + UID_COUNT * (1 + slot)
        self.process: subprocess.Popen[bytes] | None = None
        self.fill_catalogue()

    # -- files ----------------------------------------------------------------------------------

    @property
    def socket_path(self) -> Path:
        return self.run_dir / "motte.sock"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def places(self) -> list[str]:
        return [
            f"--state-dir={self.state_dir}",
            f"--run-dir={self.run_dir}",
            f"--cgroup={self.cgroup}",
            f"--uid-base={self.uid_base}",
        ]

    def admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "motte-admin"), *words, *self.places()],
            check=False,
            capture_output=True,
            text=True,
        )

    def _admin_ok(self, *words: str) -> None:
        done = self.admin(*words)
        if done.returncode != 0:
            raise RuntimeError(f"motte-admin {words}: {done.stderr}")

    def fill_catalogue(self) -> None:
        self.state_dir.mkdir(mode=0o755)
        if self.backend.linux:
            source = guest_dir()
            self._admin_ok("kernel", "add", str(source / "kernel"), "--name", "linux")
            self._admin_ok(
                "image", "add", str(source / "python.sqfs"), "--name", "python", "--kernel", "linux"
            )
            return
        kernel = self.home / "kernel"
        kernel.mkdir()
        shutil.copy(build_dir() / "tests" / "guest" / "testguest.elf", kernel / "vmlinux")
        disk = self.home / "disk"
        disk.write_bytes(os.urandom(1 << 20))
        self._admin_ok("kernel", "add", str(kernel), "--name", "testguest")
        self._admin_ok(
            "image", "add", str(disk), "--raw", "--name", "testguest", "--kernel", "testguest"
        )

    @property
    def disk(self) -> Path:
        """The image file that every VM reads."""
        return self.state_dir / "images" / self.backend.image / "disk"

    def disk_digest(self) -> str:
        with self.disk.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def first_digest(self) -> str:
        """As it was when somebody asked first; in the nested host it takes seconds."""
        return self.disk_digest()

    # -- life -----------------------------------------------------------------------------------

    def command(self) -> list[str]:
        hypervisor = (
            ["--dev", "--hypervisor=qemu"]
            if self.backend.emulated
            else [
                "--hypervisor=firecracker",
                f"--firecracker={program('firecracker')}",
                f"--jailer={program('jailer')}",
            ]
        )
        return [
            str(self.bin / "motted"),
            *self.places(),
            f"--front-user={FRONT_USER}",
            f"--front={self.bin / 'motte-front'}",
            f"--listen=unix:{self.socket_path}",
            f"--default-image={self.backend.image}",
            f"--boot-timeout-ms={self.backend.boot_timeout_ms}",
            f"--answer-timeout-ms={self.backend.answer_timeout_ms}",
            "--image-snapshots=0",  # but where a test asks for them: what it counts is its own
            *hypervisor,
            *self.options,
        ]

    def spawn(self, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Starts it without waiting."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(self.home / "notify"),
                    # Confined as the halves are, the leak check of a sanitizer's build cannot look.
                    "ASAN_OPTIONS": "detect_leaks=0",
                },
            )
        return self.process

    def start(self, seconds: float = 60) -> "Daemon":
        notify = self.home / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(notify))
            notify.chmod(0o777)
            process = self.spawn()
            deadline = time.monotonic() + seconds
            sock.settimeout(0.1)
            while True:
                try:
                    if b"READY=1" in sock.recv(4096):
                        return self
                except TimeoutError:
                    pass
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"motted did not get ready:\n{self.log[-4000:]}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def front_pid(self) -> int:
        for pid in host.children(self.pid):
            if host.status_of(pid)["Name"] == "motte-front":
                return pid
        raise RuntimeError(f"motted has no motte-front:\n{self.log[-2000:]}")

    def wait_ended(self, front: int | None = None, seconds: float = 30) -> int:
        """Both halves end when one does. `front` is a pidfd, taken."""
        assert self.process is not None
        try:
            status = self.process.wait(timeout=seconds)
            self.process = None
            if front is not None and not select.select([front], [], [], seconds)[0]:
                raise TimeoutError("motte-front outlives motted")
            return status
        finally:
            if front is not None:
                os.close(front)

    def open_front(self) -> int:
        """A pidfd of the front, to see it end."""
        return os.pidfd_open(self.front_pid)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        front = self.open_front()
        os.kill(self.pid, signal_number)
        return self.wait_ended(front)

    def purge(self) -> None:
        done = subprocess.run(
            [*self.command(), "--purge"], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Ends all and removes everything, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self.wait_ended()
        subprocess.run(
            [*self.command(), "--purge"], check=False, stdout=subprocess.DEVNULL, timeout=60
        )
        shutil.rmtree(self.home, ignore_errors=True)

    # -- what is there --------------------------------------------------------------------------

    def leftovers(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.admin("leftovers", "--json").stdout)
        return found

    def left_over(self) -> dict[str, list[Any]]:
        """By kind, without what is in use."""
        found = self.leftovers()
        return {kind: found[kind] for kind in found if kind not in ("running", "spare_chains")}

    def assert_no_leftovers(self) -> None:
        kinds = self.left_over()
        assert not any(kinds.values()), kinds

    def wait_no_leftovers(self, seconds: float = 30) -> None:
        """For what is undone a little later: asks until nothing is left."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(self.left_over().values()), seconds)
        self.assert_no_leftovers()

    def spare_chains(self) -> set[str]:
        """Chains that stand and are no VM's: made ahead, or about to be removed. One that has been
        taken since is in the list until the next is written, but has a record by then."""
        folder = self.run_dir / "priv"
        path = folder / "spares"
        instances = path.read_text(encoding="ascii").split() if path.exists() else []
        return {host.chain_of(name) for name in instances if not (folder / name).exists()}

    def rules(self) -> dict[str, list[str]]:
        """host.firewall() without spare chains and what leads to them."""
        spare = self.spare_chains()
        tables = host.firewall()
        spare |= self.spare_chains()  # one that was made, or retired, while we looked
        return {
            name: [line for line in lines if not host.is_about(line, spare)]
            for name, lines in tables.items()
        }

    def vm_rules(self) -> list[str]:
        """The lines about VMs' chains; spare ones are no VM's."""
        lines = [line for lines in self.rules().values() for line in lines]
        return [line for line in lines if host.VM_CHAIN.search(line)]

    def vmms(self) -> dict[int, int]:
        """pid -> uid of every process of a VM; with those that motted should have waited for."""
        parent = self.process.pid if self.process is not None else None
        return host.processes_of_uids(self.uid_base, UID_COUNT, parent)

    def vmm_of(self, instance: str) -> int:
        for pid in self.vmms():
            if instance in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
                return pid
        raise LookupError(f"no process of {instance}")

    def rows(self) -> int:
        """Rows of VMs in the inventory, read through SQLite itself."""
        uri = f"file:{self.state_dir}/front/motte.db?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=5)
        try:
            return int(connection.execute("SELECT count(*) FROM vms").fetchone()[0])
        finally:
            connection.close()
