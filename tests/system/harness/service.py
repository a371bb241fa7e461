"""Motte as systemd runs it, in a nested host."""

import shutil
import subprocess
from pathlib import Path

from . import host
from .backend import guest_dir

SOCKET = "/run/motte/motte.sock"
UID_BASE, UID_COUNT = 1879048192, 65536
CONFIG = Path("/etc/motte/motted.conf")
PACKAGES = Path("/usr/local/share/motte-packages")
HIGHER = "99"
ALONE = b"image-snapshots = 0\n"  # no VM but those of the tests, which count them


def run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        log = subprocess.run(
            ["journalctl", "-u", "motted", "-n", "30", "--no-pager"],
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        raise RuntimeError(f"{argv} ended with {done.returncode}:\n{done.stderr}\n{log}")
    return done.stdout


def main_pid() -> int:
    return int(run("systemctl", "show", "--property=MainPID", "--value", "motted"))


def vmms() -> dict[int, int]:
    return host.processes_of_uids(UID_BASE, UID_COUNT)


def fill_catalogue() -> None:
    guest = guest_dir()
    run("motted", "kernel", "add", str(guest / "kernel"), "--name", "debian")
    run(
        "motted", "image", "add", str(guest / "python.sqfs"), "--name", "python", "--kernel",
        "debian",
    )  # fmt: skip


def install_package(higher: bool = False) -> None:
    found = [path for path in PACKAGES.glob("*.deb") if (f"_{HIGHER}_" in path.name) == higher]
    run("dpkg", "--install", str(found[0]))


def install_first_package() -> None:
    """In the place of what `cmake --install` put into this host. The state directory is empty, or
    was another life's."""
    local = Path("/usr/local")
    (local / "lib/systemd/system/motted.service").unlink()
    (local / "bin/motted").unlink()
    shutil.rmtree(local / "libexec/motte")
    install_package()
    CONFIG.write_bytes(CONFIG.read_bytes() + ALONE)
    if not Path("/var/lib/motte/images").exists():
        fill_catalogue()
    run("systemctl", "enable", "--now", "motted")
