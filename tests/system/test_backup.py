"""Copies of the inventory: taken under load, and put back; VMs are adopted or ended, never lost
track of."""

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import FRONT_USER, Daemon
from harness.waiting import wait_until


def motted(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """As an operator types it."""
    return subprocess.run(
        [str(daemon.bin / "motted"), *words, *daemon.places()],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def ask(copy: Path, sql: str) -> list[tuple[object, ...]]:
    """Without a chance to write."""
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def inventory(daemon: Daemon) -> dict[str, str]:
    folder = daemon.state_dir / "front"
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.testguest
def test_R02_backups_under_load_are_whole_and_hold_nobody_up(
    daemon: Daemon, connect: Callable[..., Client], backend: Backend, tmp_path: Path
) -> None:
    tmp_path.parent.chmod(0o700)  # the front's user cannot get there
    connect(daemon).create(id="kept", memory_mib=backend.memory_mib)
    over = threading.Event()
    turns = [0, 0, 0]
    failures: list[str] = []

    def churn(number: int) -> None:
        client = connect(daemon)
        try:
            while not over.is_set():
                client.create(id=f"load{number}", memory_mib=backend.memory_mib)
                client.delete(f"load{number}")
                turns[number] += 1
        except Exception as error:  # whatever it is, the test fails for it
            failures.append(repr(error))

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(len(turns))]
    for thread in threads:
        thread.start()
    copies = [tmp_path / f"copy{number}" for number in range(6)]
    wait_until(lambda: min(turns) > 0 or failures != [], 60, "no load")
    for copy in copies:
        done = motted(daemon, "backup", str(copy))
        assert done.returncode == 0, done.stderr
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    for copy in copies:
        held = copy.stat()
        assert (held.st_uid, stat.S_IMODE(held.st_mode)) == (0, 0o600)
        assert ask(copy, "PRAGMA integrity_check") == [("ok",)]
        assert copy.read_bytes()[18:20] == b"\x01\x01", "needs no log beside it to be read"
        assert ("kept",) in ask(copy, "SELECT id FROM vms WHERE state = 2")
    assert sorted(tmp_path.iterdir()) == copies, "each is one file"
    names = {path.name for path in (daemon.state_dir / "front").iterdir()}
    assert names == {"motte.db", "motte.db-wal", "motte.db-shm", "ballast"}


def test_R02_a_backup_overwrites_nothing_and_says_what_is_wrong(
    daemon: Daemon, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.write_text("precious")
    done = motted(daemon, "backup", str(copy))
    assert done.returncode != 0
    assert "File exists" in done.stderr
    assert copy.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert motted(daemon, "backup", str(link)).returncode != 0
    assert not (tmp_path / "elsewhere").exists()
    done = motted(daemon, "backup", str(tmp_path / "missing" / "copy"))
    assert "No such file or directory" in done.stderr
    assert "missing" in motted(daemon, "backup").stderr
    unprivileged = subprocess.run(
        ["setpriv", "--reuid=12345", "--clear-groups", str(daemon.bin / "motte-admin"), "backup",
         str(tmp_path / "mine"), *daemon.places()],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "root" in unprivileged.stderr


def test_R02_after_a_restore_vms_are_adopted_or_ended(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, tmp_path: Path
) -> None:
    """`kept` is in the copy and runs; `deleted` is in it and is gone; `later` runs and is not."""
    daemon = start()
    client = connect(daemon)
    for vm_id in ("kept", "deleted"):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    kept = client.get("kept")
    copy = tmp_path / "copy"
    assert motted(daemon, "backup", str(copy)).returncode == 0
    client.delete("deleted")
    (pid,) = daemon.vmms()
    client.create(id="later", memory_mib=backend.memory_mib)
    client.expect(200, "GET", "/audit")  # and what the calls before it left is written
    before = inventory(daemon)
    done = motted(daemon, "restore", str(copy))
    assert done.returncode != 0
    assert "stop it first" in done.stderr
    assert inventory(daemon) == before
    daemon.stop()
    done = motted(daemon, "restore", str(copy))
    assert done.returncode == 0, done.stderr
    assert copy.exists()
    names = {path.name for path in (daemon.state_dir / "front").iterdir()}
    (aside,) = names - {"motte.db", "ballast"}
    assert aside in done.stdout
    assert ("later",) in ask(daemon.state_dir / "front" / aside, "SELECT id FROM vms")
    assert (daemon.state_dir / "front" / "motte.db").owner() == FRONT_USER
    daemon.start()
    client = connect(daemon)
    assert [vm["id"] for vm in client.list()] == ["kept"]
    assert client.get("kept") == kept
    assert list(daemon.vmms()) == [pid]
    assert client.exec("kept", ["/bin/echo", "still"]).out == "still\n"
    client.problem(404, "vm_gone", "GET", "/vms/deleted")
    client.problem(404, "vm_not_found", "GET", "/vms/later")
    daemon.wait_no_leftovers()


def test_R02_a_damaged_inventory_stops_the_start_and_a_restore_heals_it(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, tmp_path: Path
) -> None:
    daemon = start()
    connect(daemon).create(id="on", memory_mib=backend.memory_mib)
    vmms = daemon.vmms()
    copy = tmp_path / "copy"
    assert motted(daemon, "backup", str(copy)).returncode == 0
    daemon.stop()
    database = daemon.state_dir / "front" / "motte.db"
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    damaged = hashlib.sha256(database.read_bytes()).hexdigest()
    process = daemon.spawn()
    assert process.wait(timeout=30) != 0
    daemon.process = None
    assert "motted restore FILE" in daemon.log
    assert daemon.vmms() == vmms, "nothing is killed"
    done = motted(daemon, "restore", str(copy))
    assert done.returncode == 0, done.stderr
    assert damaged in inventory(daemon).values(), "what was there is kept as it was"
    daemon.start()
    assert daemon.vmms() == vmms
    assert connect(daemon).exec("on", ["/bin/echo", "on"]).out == "on\n"


@pytest.mark.testguest
def test_R02_what_is_no_good_copy_is_refused_and_changes_nothing(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = start()
    good = tmp_path / "good"
    assert motted(daemon, "backup", str(good)).returncode == 0
    daemon.stop()

    def spoilt(name: str, sql: str) -> Path:
        path = tmp_path / name
        shutil.copy(good, path)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
        return path

    torn = tmp_path / "torn"
    torn.write_bytes(good.read_bytes()[:10000])
    junk = tmp_path / "junk"
    junk.write_bytes(b"no database" * 1000)
    empty = tmp_path / "empty"
    empty.touch()
    bad = {
        spoilt("newer", "PRAGMA user_version = 1000"): "schema 1000",
        spoilt("foreign", "PRAGMA application_id = 5"): "another program",
        torn: "damaged",
        junk: "damaged",
        empty: "no inventory",
        tmp_path / "absent": "No such file",
    }
    before = inventory(daemon)
    for path, words in bad.items():
        done = motted(daemon, "restore", str(path))
        assert done.returncode != 0, path
        assert words in done.stderr, done.stderr
        assert inventory(daemon) == before
    daemon.start()


@pytest.mark.testguest
def test_R41_what_a_captured_front_left_beside_its_inventory_leads_root_nowhere(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Links of both kinds to what is root's alone; whoever opens them must not be root."""
    daemon = start()
    good = tmp_path / "good"
    assert motted(daemon, "backup", str(good)).returncode == 0
    daemon.stop()
    folder = daemon.state_dir / "front"
    precious = daemon.home / "precious"
    shutil.copy(good, precious)
    precious.chmod(0o600)
    before = precious.read_bytes()
    trapped = tmp_path / "trapped"
    (folder / "motte.db").unlink()
    os.link(precious, folder / "motte.db")
    assert motted(daemon, "backup", str(trapped)).returncode != 0
    assert not trapped.exists()
    for name in ("motte.db-wal", "motte.db-shm", "backup.part", "restore.part", "restore.part-wal"):
        (folder / name).symlink_to(precious)
    assert motted(daemon, "backup", str(trapped)).returncode != 0
    motted(daemon, "restore", str(good))
    assert precious.read_bytes() == before
    assert precious.owner() == "root"
