"""Cleans up behind a benchmark that was killed: reads what there is from its input, whose end is
the benchmark's end. After one that cleaned up itself it finds nothing."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.daemon import Daemon

WAIT_S = 30


def remove_cgroups(folders: Sequence[Path]) -> None:
    """A floor's, with those of its VMs."""
    deadline = time.monotonic() + 10
    for folder in [*(vm for top in folders for vm in top.iterdir() if vm.is_dir()), *folders]:
        while time.monotonic() < deadline:  # until the kernel has let go of the dead
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.01)


def remove_homes(folders: Sequence[Path]) -> None:
    """With the tmpfs that a daemon's may have in it, which keeps it from being removed."""
    for folder in folders:
        if (folder / "run").is_mount():
            subprocess.run(["umount", folder / "run"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def watching(daemon: Daemon, folders: Sequence[Path], cgroups: Sequence[Path]) -> Iterator[None]:
    """In a session of its own, so that nobody's Ctrl-C reaches it."""
    janitor = subprocess.Popen(
        [sys.executable, "-m", "bench.janitor"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert janitor.stdin is not None
    words = [daemon.pid, daemon.command(), list(map(str, folders)), list(map(str, cgroups))]
    janitor.stdin.write(json.dumps(words) + "\n")
    janitor.stdin.flush()
    try:
        yield
    finally:
        janitor.kill()
        janitor.wait()


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        if b"motted" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            select.select([pidfd], [], [], WAIT_S)


def main() -> None:
    words = sys.stdin.readline()
    sys.stdin.read()
    pid, command, folders, cgroups = json.loads(words)
    end(pid)
    subprocess.run([*command, "--purge"], check=False, timeout=WAIT_S)
    remove_cgroups([Path(name) for name in cgroups if Path(name).exists()])
    remove_homes([Path(name) for name in folders])


if __name__ == "__main__":
    main()
