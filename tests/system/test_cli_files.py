"""The command-line client copies files and directories, and trusts no VM with this host."""

import contextlib
import io
import os
import pty
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.motte import Motte, Stranger
from harness.waiting import wait_until

VM = "carried"


@pytest.fixture(scope="module")
def vm(shared: Daemon, contract: Contract, backend: Backend) -> Iterator[Client]:
    client = Client(contract, str(shared.socket_path))
    client.create(id=VM, memory_mib=backend.memory_mib)
    yield client
    client.delete(VM)
    client.close()


@pytest.fixture
def motte(shared: Daemon, vm: Client) -> Motte:
    return Motte(shared)


def copy(motte: Motte, *words: str | Path, given: bytes = b"", status: int = 0) -> bytes:
    """What it prints; on stderr where it fails."""
    done = motte("cp", *map(str, words), given=given)
    assert (done.returncode, status != 0) == (status, done.stderr != b""), done.stderr
    return done.stderr if status else done.stdout


@pytest.mark.core
@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 5])
def test_R29_a_file_goes_in_and_comes_back_as_it_was(
    motte: Motte, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    here, back = tmp_path / "here.bin", tmp_path / "back.bin"
    here.write_bytes(data)
    assert copy(motte, here, f"{VM}:/tmp/") == b""
    assert copy(motte, f"{VM}:/tmp/here.bin", back) == b""
    assert back.read_bytes() == data
    assert stat.S_IMODE(back.stat().st_mode) == 0o644
    assert copy(motte, f"{VM}:/tmp/here.bin", "-") == data
    assert copy(motte, "-", f"{VM}:/tmp/piped", given=data) == b""
    assert copy(motte, f"{VM}:/tmp/piped", tmp_path) == b""
    assert (tmp_path / "piped").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["back.bin", "here.bin", "piped"]


def test_R30_a_copy_that_fails_says_why_and_leaves_all_as_it_was(
    motte: Motte, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.write_text("old")
    kept.chmod(0o640)
    assert b"file_not_found" in copy(motte, f"{VM}:/tmp/nothing", kept, status=1)
    assert kept.read_text() == "old"
    assert b"-r" in copy(motte, tmp_path, f"{VM}:/tmp/folder", status=2)
    assert b"VM:PATH" in copy(motte, kept, tmp_path / "other", status=2)
    assert b"VM:PATH" in copy(motte, f"{VM}:/a", f"{VM}:/b", status=2)
    assert b"name" in copy(motte, f"{VM}:/tmp/..", tmp_path, status=2)
    assert b"vm_not_found" in copy(motte, kept, "nobody:/tmp/x", status=1)
    assert b"no file" in copy(motte, f"{VM}:/tmp/x", "/dev/null", status=2)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    copy(motte, "-", f"{VM}:/tmp/new", given=b"new")
    copy(motte, f"{VM}:/tmp/new", kept)
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == ("new", 0o640)
    assert os.listdir(tmp_path) == ["kept"]


def test_R29_a_copy_that_waits_for_its_input_is_interrupted(motte: Motte) -> None:
    running = subprocess.Popen(
        [motte.program, "cp", "-", f"{VM}:/tmp/never"],
        env=motte.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    waits = Path(f"/proc/{running.pid}/wchan")
    wait_until(lambda: "poll" in waits.read_text())
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (130, b"motte: interrupted\n")
    assert b"file_not_found" in copy(motte, f"{VM}:/tmp/never", "-", status=1)


def test_R30_a_person_sees_how_far_a_copy_is(motte: Motte) -> None:
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [motte.program, "cp", "-", f"{VM}:/tmp/slow"],
        env=motte.environment, stdin=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    assert running.stdin is not None
    seen, given = b"", b""

    def shown() -> bool:
        nonlocal seen, given
        assert running.stdin is not None
        given += b"x" * 100
        running.stdin.write(b"x" * 100)
        running.stdin.flush()
        with contextlib.suppress(BlockingIOError):
            seen += os.read(ours, 4096)
        return b"copying  " in seen

    wait_until(shown)
    running.stdin.close()
    assert running.wait(timeout=60) == 0
    os.close(ours)
    assert copy(motte, f"{VM}:/tmp/slow", "-") == given


@pytest.mark.linux
def test_R29_a_directory_goes_in_and_comes_back(motte: Motte, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "data").write_bytes(os.urandom(300_000))
    (here / "run").write_text("#!/bin/sh\n")
    (here / "run").chmod(0o755)
    (here / "sub" / "up").symlink_to("../run")
    assert copy(motte, "-rp", here, f"{VM}:/tmp/deep/er/") == b""
    assert copy(motte, "-r", f"{VM}:/tmp/deep/er/here", back) == b""
    assert (back / "sub" / "data").read_bytes() == (here / "sub" / "data").read_bytes()
    assert stat.S_IMODE((back / "run").stat().st_mode) == 0o755
    assert (back / "sub" / "up").readlink() == Path("../run")
    assert stat.S_IMODE(back.stat().st_mode) == 0o755
    assert b"replaces nothing" in copy(
        motte, "-r", f"{VM}:/tmp/deep/er", back.parent / "back" / "run", status=2
    )
    assert b"-r" not in copy(motte, "-r", f"{VM}:/tmp/deep/er/here", back)
    assert (back / "here" / "run").is_file()
    with tarfile.open(fileobj=io.BytesIO(copy(motte, "-r", f"{VM}:/tmp/deep", "-"))) as packed:
        assert "er/here/run" in packed.getnames()
    assert copy(motte, f"{VM}:/tmp/deep", tmp_path / "none", status=1)
    assert sorted(os.listdir(tmp_path)) == ["back", "here"]


# ---- a guest that packs what it wants ------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path, shared: Daemon) -> Iterator[tuple[Stranger, Motte]]:
    served = Stranger(tmp_path / "hostile")
    motte = Motte(shared)
    motte.environment["MOTTE_ADDRESS"] = str(tmp_path / "hostile")
    yield served, motte
    served.socket.close()


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = kind, 0o755
    for what, value in more.items():
        setattr(made, what, value)
    return made


def link(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def archive(*members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for one in members:
            tar.addfile(one, io.BytesIO(b"x" * one.size))
    return packed.getvalue()


def pit(name: str) -> list[tarfile.TarInfo]:
    return [member("/".join([name] * depth), tarfile.DIRTYPE) for depth in range(1, 200)]


STRANGE: dict[str, list[tarfile.TarInfo]] = {
    "absolute": [member("/outside/escaped", size=1)],
    "above": [member("../escaped", size=1)],
    "inner above": [member("a/../../escaped", size=1)],
    "absolute link": [link("l", "/etc")],
    "link above": [link("l", "../escaped")],
    "written through": [link("l", ".."), member("l/escaped", size=1)],
    "link behind a link": [
        member("a/b/c", tarfile.DIRTYPE), link("a/b/c/l", "../../.."), link("m", "a/b/c/l/.."),
    ],
    "hard link": [member("a", size=1), member("b", tarfile.LNKTYPE, linkname="a")],
    "hard link out": [member("b", tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": [member("d", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "pipe": [member("p", tarfile.FIFOTYPE)],
    "deep": pit("d"),
    "nameless": [member("\x1b[2J", tarfile.FIFOTYPE)],
}  # fmt: skip


@pytest.mark.testguest
@pytest.mark.parametrize("what", STRANGE)
def test_R11_nothing_that_a_guest_packs_gets_out_of_its_directory(
    hostile: tuple[Stranger, Motte], tmp_path: Path, what: str
) -> None:
    served, motte = hostile
    members = [member("first", size=1), *STRANGE[what]]
    for one in members:
        one.name = one.name.replace("/outside", str(tmp_path))
    served.body = archive(*members)
    (tmp_path / "target").mkdir()
    motte.environment["TAR_OPTIONS"] = "-P"
    said = copy(motte, "-r", "any:/x", tmp_path / "target", status=1)
    assert b"nothing is kept" in said
    assert b"\x1b" not in said
    assert os.listdir(tmp_path / "target") == []
    assert sorted(os.listdir(tmp_path)) == ["hostile", "target"]


@pytest.mark.testguest
def test_R11_what_is_kept_has_no_set_id_bit_and_no_owner(
    hostile: tuple[Stranger, Motte], tmp_path: Path
) -> None:
    served, motte = hostile
    served.body = archive(
        member("s", size=1, mode=0o6777, uid=12345, gid=12345),
        member("d", tarfile.DIRTYPE, mode=0o7000),
        link("inside", "./s"),
    )
    copy(motte, "-r", "any:/x", tmp_path / "tree")
    found = (tmp_path / "tree" / "s").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o755, os.getuid())
    assert stat.S_IMODE((tmp_path / "tree" / "d").stat().st_mode) & 0o6700 == 0o700
    assert (tmp_path / "tree" / "inside").read_bytes() == b"x"


@pytest.mark.testguest
def test_R29_what_breaks_off_or_is_another_is_not_kept(
    hostile: tuple[Stranger, Motte], tmp_path: Path
) -> None:
    served, motte = hostile
    whole = archive(member("f", size=100_000), member("g", size=1))
    served.body = whole[:50_000]
    assert copy(motte, "-r", "any:/x", tmp_path / "tree", status=1)
    served.head += b"Repr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n"
    assert b"digest" in copy(motte, "any:/x", tmp_path / "file", status=1)
    assert b"digest" in copy(motte, "any:/x", "-", status=1)
    assert os.listdir(tmp_path) == ["hostile"]
    served.body = b""
    copy(motte, "any:/x", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.testguest
def test_R29_a_file_too_large_for_a_digest_comes_all_the_same(
    hostile: tuple[Stranger, Motte], tmp_path: Path
) -> None:
    served, motte = hostile
    served.body = b"large"
    assert b"digest" in copy(motte, "any:/x", tmp_path / "file", status=1)
    served.refused = b"digest="
    copy(motte, "any:/x", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"large"
    served.refused = b"GET"
    assert b"refused" in copy(motte, "any:/x", tmp_path / "file", status=1)
    assert (tmp_path / "file").read_bytes() == b"large"
