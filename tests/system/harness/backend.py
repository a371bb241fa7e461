"""What the tests boot: the freestanding test guest, or Linux; and how each is told to do things."""

import os
from dataclasses import dataclass
from pathlib import Path

KINDS = ("firecracker", "qemu", "firecracker-linux")


@dataclass(frozen=True)
class Backend:
    """Commands by what they do; `echo`, `cat`, `sleep`, `true`, `false` are the same everywhere."""

    kind: str
    linux: bool
    emulated: bool
    image: str
    kernel: str
    memory_mib: int
    boot_timeout_ms: int
    answer_timeout_ms: int

    def flood(self, count: int) -> list[str]:
        """`count` bytes on stdout."""
        if not self.linux:
            return ["flood", str(count)]
        return ["/bin/sh", "-c", f"head -c {count} /dev/zero | tr '\\000' x"]

    def to_stderr(self, text: str) -> list[str]:
        if not self.linux:
            return ["stderr", text]
        return ["/bin/sh", "-c", f"echo {text} >&2"]

    def exit_with(self, code: int) -> list[str]:
        if not self.linux:
            return ["exit", str(code)]
        return ["/bin/sh", "-c", f"exit {code}"]

    def read_disk(self) -> list[str]:
        """The first 16 bytes of the image, in hexadecimal."""
        if not self.linux:
            return ["disk", "0"]
        return ["/bin/sh", "-c", "head -c 16 /dev/vda | od -An -v -tx1 | tr -d ' \\n'"]

    def write_disk(self) -> list[str]:
        """Tries to overwrite the image's first sector in every way this guest knows; prints a word
        that has "written" in it only if one of them worked."""
        if not self.linux:
            return ["diskwrite", "0"]
        script = (
            "blockdev --setrw /dev/vda 2>/dev/null; mount -o remount,rw /dev/vda 2>/dev/null; "
            "dd if=/dev/urandom of=/dev/vda bs=512 count=1 conv=fsync 2>/dev/null && echo written; "
            "echo tried"
        )
        return ["/bin/sh", "-c", script]

    def disk_refused(self, output: str) -> bool:
        if not self.linux:
            return output.strip().startswith("status") and output.strip() != "status 0"
        return "written" not in output and "tried" in output

    def end_itself(self) -> list[str]:
        """The guest resets; the command gets no answer."""
        if not self.linux:
            return ["reboot"]
        return ["/bin/sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger"]


def chosen() -> Backend:
    """By MOTTE_BACKEND; the test guest on real Firecracker if it is not set."""
    return of(os.environ.get("MOTTE_BACKEND", "firecracker"))


def of(kind: str) -> Backend:
    if kind == "firecracker":
        return Backend(kind, False, False, "testguest", "testguest", 128, 20_000, 2000)
    if kind == "qemu":
        return Backend(kind, True, True, "python", "linux", 256, 300_000, 60_000)
    if kind == "firecracker-linux":
        return Backend(kind, True, False, "python", "linux", 256, 240_000, 60_000)
    raise SystemExit(f"MOTTE_BACKEND is {kind!r}: use one of {', '.join(KINDS)}")


def build_dir() -> Path:
    """Where motted was built."""
    path = Path(os.environ.get("MOTTE_BUILD", "build/dev")).resolve()
    if not (path / "bin" / "motted").exists():
        raise SystemExit(f"{path}/bin/motted is missing: build first, or set MOTTE_BUILD")
    return path


def _guest_place() -> Path:
    return Path(os.environ.get("MOTTE_GUEST", "build/guest")).resolve()


def has_linux() -> bool:
    return (_guest_place() / "python.sqfs").exists()


def guest_dir() -> Path:
    """Where the Linux guest lies: kernel/ for `motte-admin kernel add`, and python.sqfs."""
    path = _guest_place()
    if not has_linux():
        raise SystemExit(f"{path}/python.sqfs is missing: tests/run.sh makes it (MOTTE_GUEST)")
    return path
