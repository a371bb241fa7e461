"""The command-line client: consoles, events, and VMs that are told something or copied."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.motte import Cutting, Motte, Stranger
from harness.waiting import wait_until

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower


@pytest.fixture
def motte(daemon: Daemon) -> Motte:
    return Motte(daemon)


@pytest.fixture
def vm(client: Client, backend: Backend) -> str:
    return str(client.create(memory_mib=backend.memory_mib)["id"])


def lines(done: subprocess.CompletedProcess[bytes], status: int = 0) -> list[str]:
    assert (done.returncode, done.stderr) == (status, b"")
    return done.stdout.decode().splitlines()


def ended(running: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, said = running.communicate(timeout=60)
    return running.returncode, out, said


def test_R27_a_console_is_printed_and_followed_over_dropped_connections(
    motte: Motte, vm: str, client: Client, daemon: Daemon, tmp_path: Path
) -> None:
    cutting = Cutting(
        tmp_path / "cutting", daemon.socket_path, rb"GET \S+/console", [12_000, 0, 9_000]
    )
    motte.environment["MOTTE_ADDRESS"] = str(tmp_path / "cutting")
    running = motte.start("logs", "-f", vm)
    client.exec(vm, ["chatter", "40000"])
    wait_until(lambda: client.exec(vm, ["chatter"]).out.strip() == "40000", 60)
    wait_until(lambda: cutting.cuts == [])
    done = motte("logs", vm)
    assert (done.returncode, done.stderr) == (0, b"")
    client.delete(vm)
    status, out, said = ended(running)
    assert (status, said) == (0, b"motte: the VM has ended: deleted\n")
    guests = re.sub(rb"\d{4}-\d\d-\d\dT[^\n]*\n", b"", out)  # the VMM's may cut a line in two
    assert guests.count(b"c" * 79) == 500
    assert done.stdout in out
    assert motte("logs", vm).stdout[-80:] in out  # its certificate's
    done = motte("logs", "nobody")
    assert (done.returncode, done.stdout) == (1, b"")
    cutting.socket.close()


def test_R31_events_are_lines_that_no_terminal_obeys(motte: Motte, vm: str, client: Client) -> None:
    client.pause(vm)
    told = lines(motte("events", "--vm", vm, "--kind=running", "--kind", "paused"))
    assert [line.split()[1:3] for line in told] == [["running", vm], ["paused", vm]]
    entries = [json.loads(line) for line in lines(motte("events", "--json", "--vm", vm))]
    assert [entry["kind"] for entry in entries][-1] == "paused"
    assert lines(motte("events", "--vm", vm, f"--after={entries[-1]['seq']}")) == []
    running = motte.start("events", "-f", "--json", "--vm", vm, f"--after={entries[-1]['seq']}")
    client.resume(vm)
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["kind"] == "resumed"
    running.terminate()
    assert ended(running) == (130, b"", b"motte: interrupted\n")
    done = motte("events", "--kind=nonsense")
    assert done.returncode == 1
    assert b"kind" in done.stderr


def test_R31_what_others_said_moves_no_cursor(motte: Motte, tmp_path: Path) -> None:
    served = Stranger(tmp_path / "stranger")
    served.head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    entry = '{"at":"now","kind":"ended","id":"x","detail":{"message":"\\u001b[2J\\u009b\u009b|"}}'
    served.body = f"event: ended\nid: 5\ndata: {entry}\n\n".encode()
    motte.environment["MOTTE_ADDRESS"] = str(tmp_path / "stranger")
    (line,) = lines(motte("events"))
    assert line.split() == ["now", "ended", "x", "message=?[2J??|"]
    assert lines(motte("events", "--json")) == [entry]  # for programs
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [motte.program, "events", "--json"], env=motte.environment, stdout=theirs, check=True
    )
    assert done.returncode == 0
    assert os.read(ours, 4096).decode().rstrip() == entry.replace("\u009b", "?")
    os.close(ours)
    os.close(theirs)
    served.socket.close()


def test_R18_pause_resume_keepalive(motte: Motte, vm: str, client: Client) -> None:
    before = client.get(vm)["expires_at"]
    assert lines(motte("pause", vm)) == []
    assert client.get(vm)["state"] == "paused"
    assert lines(motte("resume", vm)) == []
    assert client.get(vm)["state"] == "running"
    assert lines(motte("keepalive", "--ttl=86400", vm)) == []
    assert client.get(vm)["expires_at"] > before
    assert json.loads(motte("resume", "--json", vm).stdout)["id"] == vm
    done = motte("pause", "nobody", vm)
    assert done.returncode == 1
    assert client.get(vm)["state"] == "running"


def test_R22_snapshots_and_forks_are_made_listed_and_gone(
    motte: Motte, vm: str, client: Client, backend: Backend
) -> None:
    (snapshot,) = lines(motte("snapshot", "--label=stage=ready", vm))
    head, row = lines(motte("snapshots", "--label=stage"))
    assert (head.split()[:2], row.split()[:2]) == (["ID", "OF"], [snapshot, vm])
    assert lines(motte("snapshots", "-q", "--label=stage=other")) == []
    (again,) = lines(motte("create", f"--snapshot={snapshot}"))
    assert client.get(again)["state"] == "running"
    done = motte("snapshot-rm", snapshot)
    assert done.returncode == 1
    assert b"snapshot_in_use" in done.stderr
    assert lines(motte("rm", again)) == []
    assert lines(motte("snapshot-rm", snapshot)) == []
    assert lines(motte("snapshots", "-q")) == []
    forks = lines(motte("fork", "-n2", "--ttl=600", vm))
    assert sorted(one["id"] for one in client.list()) == sorted([vm, *forks])
    assert len(forks) == 2
