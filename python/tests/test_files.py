"""Files of a VM through the client."""

import asyncio
import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from cutter import REQUEST, Cutter
from harness.daemon import Daemon
from motte import AsyncMotte, GuestError, Motte, NotFound, TooMuch, Vm


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_R29_a_file_comes_back_as_it_went(vm: Vm, size: int) -> None:
    data = os.urandom(size)
    told = vm.write_file("/tmp/a b&c=ä", data, mode=0o600)
    assert (told.path, told.size, told.mode) == ("/tmp/a b&c=ä", size, "0600")
    assert told.sha256 == hashlib.sha256(data).hexdigest()
    assert vm.read_file("/tmp/a b&c=ä") == data
    assert vm.read_file("/tmp/a b&c=ä", most=1000) == data[:1000]
    vm.delete_file("/tmp/a b&c=ä")
    for most in (None, 1000):
        with pytest.raises(NotFound, match=r"^file_not_found: "):
            vm.read_file("/tmp/a b&c=ä", most=most)


def test_R29_no_more_of_a_file_comes_than_was_wished(vm: Vm, tmp_path: Path) -> None:
    data, here = os.urandom(300_000), tmp_path / "here"
    vm.write_file("/tmp/long", data)
    with pytest.raises(TooMuch, match="more than 299999 bytes"):
        vm.download("/tmp/long", here, most=299_999)
    assert list(tmp_path.iterdir()) == []
    vm.download("/tmp/long", here, most=300_000)
    assert here.read_bytes() == data


@pytest.mark.linux
def test_R29_a_command_sees_what_was_written(vm: Vm) -> None:
    vm.write_file("/root/new/deep/in.csv", "a;1\n", parents=True)
    assert vm.run("cat /root/new/deep/in.csv; echo b >/root/new/out").stdout == "a;1\n"
    assert vm.read_file("/root/new/out") == b"b\n"


def test_R29_a_file_is_whole_also_where_connections_break(
    shared: Daemon, vm: Vm, tmp_path: Path
) -> None:
    data = os.urandom(200_000)
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [REQUEST, 0, 100_000, 20]) as wire,
        Motte(str(wire.path)) as far,
    ):
        there = far.get(vm.id)
        there.write_file("/tmp/broken", data)
        assert there.read_file("/tmp/broken") == data
        assert wire.done == 4


def test_R29_files_move_piece_by_piece_or_not_at_all(
    shared: Daemon, vm: Vm, tmp_path: Path
) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    here.write_bytes(os.urandom(500_000))
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [REQUEST, 100_000, 0]) as wire,
        Motte(str(wire.path)) as far,
    ):
        there = far.get(vm.id)
        assert there.upload(here, "/tmp/piecewise").size == 500_000
        there.download("/tmp/piecewise", back)
        assert wire.done == 3
    assert back.read_bytes() == here.read_bytes()
    with pytest.raises(NotFound):
        vm.download("/tmp/none", tmp_path / "none")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "back", "wire"}


def test_R29_files_move_with_asyncio_too(shared: Daemon, vm: Vm, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"in")

    async def main() -> None:
        async with AsyncMotte(str(shared.socket_path)) as motte:
            there = await motte.get(vm.id)
            await there.upload(tmp_path / "here", "/tmp/async")
            await there.download("/tmp/async", tmp_path / "back")
            assert await there.read_file("/tmp/async") == b"in"

    asyncio.run(main())
    assert (tmp_path / "back").read_bytes() == b"in"


@pytest.mark.linux
def test_R29_a_directory_goes_in_and_comes_out_as_an_archive(
    shared: Daemon, vm: Vm, tmp_path: Path
) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "sub" / "x").write_bytes(os.urandom(300_000))
    (tmp_path / "here" / "link").symlink_to("sub/x")
    packed, back = tmp_path / "in.tar", tmp_path / "out.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(tmp_path / "here", arcname=".")
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [REQUEST, 100_000]) as wire,
        Motte(str(wire.path)) as far,
    ):
        there = far.get(vm.id)
        told = there.upload_archive(packed, "/tmp/new/tree", parents=True)
        assert told.size == 300_000
        there.download_archive("/tmp/new/tree", back)
        assert wire.done == 2
    with tarfile.open(back) as tar:
        inside = tar.extractfile("sub/x")
        assert inside is not None
        assert inside.read() == (tmp_path / "here" / "sub" / "x").read_bytes()
        assert tar.getmember("link").linkname == "sub/x"
    vm.delete_file("/tmp/new", recursive=True)
    with pytest.raises(NotFound):
        vm.download_archive("/tmp/new/tree", tmp_path / "none.tar")
    assert not (tmp_path / "none.tar").exists()


@pytest.mark.linux
def test_R29_an_archive_that_leads_out_is_refused(vm: Vm, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../out"))
    with pytest.raises(GuestError, match=r"^archive_invalid: "):
        vm.upload_archive(tmp_path / "bad.tar", "/tmp/none")
    with pytest.raises(NotFound):
        list(vm.files("/tmp/none"))
