"""A VM's console through the client."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cutter import Cutter
from harness.backend import Backend
from harness.daemon import Daemon
from harness.waiting import wait_until
from motte import AsyncMotte, Chunk, Motte, Vm, VmGone, VmReplaced

pytestmark = pytest.mark.testguest  # whose `chatter` writes so much of one letter
SAID = 10_000


@pytest.fixture
def talker(motte: Motte, backend: Backend) -> Iterator[Vm]:
    with motte.vm(memory_mib=backend.memory_mib) as vm:
        vm.run(["chatter", "800"], check=True)
        yield vm


def until_all(chunks: Iterator[Chunk]) -> bytes:
    said = next(chunks).data
    while said.count(b"c" * 79) < SAID // 80:
        chunk = next(chunks)
        assert (chunk.stream, chunk.dropped_bytes) == ("console", 0)
        said += chunk.data
    return said


def test_R01_a_console_reads_as_text_until_its_vm_ends(talker: Vm) -> None:
    wait_until(lambda: "c" * 79 in talker.console(), 60, "the guest says nothing")
    talker.delete()
    with pytest.raises(VmGone):
        talker.console()
    with pytest.raises(VmGone):
        next(talker.follow_console())


def test_R29_a_console_goes_on_where_a_connection_was_lost(
    shared: Daemon, talker: Vm, tmp_path: Path
) -> None:
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [3000, 3000, 3000]) as wire,
        Motte(str(wire.path)) as far,
    ):
        broken, whole = far.get(talker.id).follow_console(), talker.follow_console()
        begun = [next(broken).data, next(whole).data]
        talker.run(["chatter", str(SAID)], check=True)
        said = [first + until_all(rest) for first, rest in zip(begun, (broken, whole), strict=True)]
        assert wire.done == 3
        talker.delete()
        ends = [b"".join(chunk.data for chunk in rest) for rest in (broken, whole)]
        assert said[0] + ends[0] == said[1] + ends[1]


def test_R10_a_console_of_another_vm_is_not_this_ones(
    daemon: Daemon, motte: Motte, backend: Backend
) -> None:
    old = motte.vm(id="same", memory_mib=backend.memory_mib)
    old.delete()
    with motte.vm(id="same", memory_mib=backend.memory_mib):
        with pytest.raises(VmReplaced):
            old.console()
        with pytest.raises(VmReplaced):
            next(old.follow_console())


def test_R01_a_console_is_followed_with_asyncio_too(shared: Daemon, talker: Vm) -> None:
    async def main() -> None:
        async with AsyncMotte(str(shared.socket_path)) as motte:
            far = await motte.get(talker.id)
            pieces: list[bytes] = []
            async for chunk in far.follow_console():
                if not pieces:
                    await far.delete()
                pieces.append(chunk.data)
            assert pieces, "and the end was told"

    asyncio.run(main())
