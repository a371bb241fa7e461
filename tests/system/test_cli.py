"""The command-line client: commands with their streams and statuses, VMs that do not stay behind,
and errors that say what is wrong."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.motte import Cutting, Motte
from harness.waiting import wait_until

FOREVER = ["sleep", "86400"]


@pytest.fixture
def motte(daemon: Daemon) -> Motte:
    return Motte(daemon)


@pytest.fixture
def vm(motte: Motte, backend: Backend) -> Iterator[str]:
    done = motte("create", "--id=mine", f"--mem={backend.memory_mib}", "--label=run=1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"mine\n", b"")
    yield "mine"
    assert motte("rm", "mine").returncode == 0


def unread(fd: int) -> int:
    """Bytes that a pipe holds."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def execs(client: Client, vm: str) -> list[str]:
    """The states of its commands."""
    return [one["state"] for one in client.expect(200, "GET", f"/vms/{vm}/execs").json()["execs"]]


@pytest.mark.core
def test_R27_a_command_in_a_vm_is_like_one_here(
    motte: Motte, vm: str, client: Client, backend: Backend
) -> None:
    done = motte("exec", vm, "echo", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    done = motte("exec", vm, "--", *backend.to_stderr("wrong"))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, b"", b"wrong")
    assert motte("exec", vm, *backend.exit_with(7)).returncode == 7
    assert motte("exec", vm, *backend.exit_with(125)).returncode == 125
    given = bytes(range(256)) * 2000
    done = motte("exec", "-i", vm, "cat", given=given)
    assert (done.returncode, done.stdout == given, done.stderr) == (0, True, b"")
    done = motte("exec", "--timeout=1", vm, *FOREVER)
    assert done.returncode == 124
    assert b"time was up" in done.stderr
    done = motte("exec", "--json", vm, "echo", "told")
    assert json.loads(done.stdout)["stdout"] == "told\n"
    done = motte("ps", "--label=run=1")
    assert [line.split()[:2] for line in done.stdout.decode().splitlines()[1:]] == [[vm, "running"]]
    assert motte("ps", "-q", "--label=run=2").stdout == b""
    assert [one["id"] for one in json.loads(motte("ps", "--json").stdout)["vms"]] == [vm]


def test_R27_an_interrupt_ends_the_command_and_not_the_vm(
    motte: Motte, vm: str, client: Client
) -> None:
    running = motte.start("exec", vm, *FOREVER)
    wait_until(lambda: execs(client, vm) == ["running"])
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (130, b"motte: interrupted\n")
    assert execs(client, vm) == ["exited"]


def test_R13_run_leaves_no_vm(motte: Motte, client: Client, backend: Backend) -> None:
    memory = f"--mem={backend.memory_mib}"
    done = motte("run", memory, "--", *backend.exit_with(3))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert client.list() == []
    done = motte("run", "-i", memory, "cat", given=b"in and out")
    assert (done.returncode, done.stdout) == (0, b"in and out")
    assert client.list() == []
    running = motte.start("run", memory, *FOREVER)

    def commands() -> list[str]:
        return [state for vm in client.list() for state in execs(client, vm["id"])]

    wait_until(lambda: commands() == ["running"], backend.boot_timeout_ms / 1000)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 130
    assert client.list() == []


def test_R13_run_interrupted_before_there_is_a_vm_leaves_none(
    motte: Motte, client: Client, backend: Backend
) -> None:
    running = motte.start("run", f"--mem={backend.memory_mib}", *FOREVER)
    wait_until(lambda: client.list() != [])
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 130
    assert client.list() == []


def test_R13_run_whose_output_nobody_reads_is_ended_by_a_signal(
    motte: Motte, client: Client, backend: Backend
) -> None:
    running = motte.start("run", f"--mem={backend.memory_mib}", *backend.flood(1 << 30))
    assert running.stdout is not None
    output = running.stdout.fileno()
    wait_until(lambda: unread(output) > 32768, backend.boot_timeout_ms / 1000)
    running.send_signal(signal.SIGQUIT)
    assert running.wait(timeout=60) == 130
    assert client.list() == []


def test_R13_run_waits_for_a_service_that_comes_back_to_end_its_vm(
    motte: Motte, daemon: Daemon, client: Client, backend: Backend
) -> None:
    running = motte.start("run", f"--mem={backend.memory_mib}", *FOREVER)
    wait_until(lambda: any(execs(client, one["id"]) for one in client.list()), 60)
    daemon.stop(signal.SIGKILL)
    running.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=1)
    daemon.start()
    assert running.wait(timeout=60) == 130
    assert client.list() == []


def test_R30_what_is_wrong_is_said_in_a_line_and_what_to_do(motte: Motte, tmp_path: Path) -> None:
    done = motte("exec", "nobody", "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"motte: ")
    assert b"nobody" in done.stderr
    assert b"vm_not_found" in done.stderr
    done = motte("create", "--mem=1")
    assert done.returncode == 1
    assert b"memory_mib" in done.stderr
    assert json.loads(motte("create", "--mem=1", "--json").stderr)["code"] == "out_of_range"
    done = motte("ps", "--colour")
    assert (done.returncode, done.stderr) == (2, b"motte: there is no option --colour\n")
    done = motte("ps", "-l", "a=1", "-l", "b=2")
    assert (done.returncode, done.stderr) == (2, b"motte: --label is taken once\n")
    nowhere = str(tmp_path / "nowhere.sock")
    done = motte("ps", "--address", nowhere)
    assert done.returncode == 3
    assert done.stderr.decode() == (
        f"motte: cannot reach the service at {nowhere}: No such file or directory. "
        "Does motted run there?\n"
    )
    assert motte("run", "--address", nowhere, "true").returncode == 125


def test_R27_a_name_that_is_not_ours_is_another_program(motte: Motte, tmp_path: Path) -> None:
    other = tmp_path / "motte-greet"
    other.write_text('#!/bin/sh\necho "hello $1"; exit 9\n')
    other.chmod(0o755)
    motte.environment["PATH"] = f"{tmp_path}:{motte.environment['PATH']}"
    done = motte("greet", "you")
    assert (done.returncode, done.stdout) == (9, b"hello you\n")
    done = motte("../greet")
    assert done.returncode == 2
    assert b"there is no command" in done.stderr


def test_R29_output_goes_on_where_a_connection_broke(
    motte: Motte, vm: str, daemon: Daemon, tmp_path: Path
) -> None:
    cutting = Cutting(
        tmp_path / "cutting", daemon.socket_path, rb"GET \S+/events ", [0, 300, 20000, 70001]
    )
    motte.environment["MOTTE_ADDRESS"] = str(tmp_path / "cutting")
    given = bytes(range(256)) * 1000
    done = motte("exec", "-i", vm, "cat", given=given)
    assert (done.returncode, done.stdout == given, done.stderr) == (0, True, b"")
    assert cutting.cuts == []
    cutting.socket.close()


def test_R29_an_answer_that_is_lost_makes_no_second_vm(
    motte: Motte, client: Client, daemon: Daemon, backend: Backend, tmp_path: Path
) -> None:
    cutting = Cutting(tmp_path / "cutting", daemon.socket_path, rb"POST /vms ", [0, 0])
    motte.environment["MOTTE_ADDRESS"] = str(tmp_path / "cutting")
    done = motte("create", f"--mem={backend.memory_mib}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [vm["id"] for vm in client.list()] == [done.stdout.decode().strip()]
    assert cutting.cuts == []
    cutting.socket.close()


@pytest.mark.linux
def test_R27_a_terminal_is_the_commands_and_ours_again_at_the_end(motte: Motte, vm: str) -> None:
    """What tcgetattr says before and after; between them keys go through as they are."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    running = subprocess.Popen(
        [motte.program, "exec", "-it", vm, "sh", "-c", "tty; read word; echo got $word; exit 4"],
        env=motte.environment, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    seen = b""

    def shows(what: bytes) -> bool:
        nonlocal seen
        seen += os.read(ours, 4096)
        return what in seen

    wait_until(lambda: shows(b"/dev/pts/"), 60)
    assert termios.tcgetattr(theirs) != before
    os.write(ours, b"typed\r")
    wait_until(lambda: shows(b"got typed"), 60)
    assert running.wait(timeout=60) == 4
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
