"""Commands that are watched, fed and ended."""

import asyncio
from pathlib import Path

import pytest

from cutter import Cutter
from harness.backend import Backend
from harness.daemon import Daemon
from motte import AsyncMotte, Chunk, CommandFailed, CommandTimeout, Conflict, Motte, Pty, Vm

SIZE = 300_000


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


def test_R27_a_command_is_fed_watched_and_ends(vm: Vm) -> None:
    with vm.exec(["/bin/cat"], stdin="one\n", stdin_open=True) as command:
        assert command.info.state == "running"
        command.write("two\n")
        command.write(b"three\n", end=True)
        chunks = list(command.output())
        assert joined(chunks) == b"one\ntwo\nthree\n"
        assert {chunk.stream for chunk in chunks} == {"stdout"}
        assert (command.info.state, command.info.exit_code) == ("exited", 0)
        assert command.refresh().stdout == "one\ntwo\nthree\n"
        with pytest.raises(Conflict, match=r"^exec_(stdin_conflict|ended): "):
            command.write("four")
    assert command.id in [old.id for old in vm.execs()]


def test_R27_a_with_ends_what_still_runs(vm: Vm) -> None:
    with vm.exec(["/bin/sleep", "600"], timeout_ms=600_000) as command:
        assert command.refresh().state == "running"
    assert command.refresh().killed
    assert command.wait().state == "exited"


def test_R27_output_comes_while_it_is_written(vm: Vm, backend: Backend) -> None:
    seen: list[Chunk] = []
    done = vm.run(backend.flood(SIZE), on_output=seen.append)
    assert len(joined(seen)) == SIZE
    assert joined(seen).decode("utf-8", "replace") == done.stdout
    assert (done.exit_code, done.stdout_truncated, done.stderr) == (0, False, "")
    with pytest.raises(CommandFailed, match="exit code 7"):
        vm.run(backend.exit_with(7), check=True, on_output=seen.append)


def test_R31_a_watched_command_out_of_time_raises_as_others(vm: Vm) -> None:
    with pytest.raises(CommandTimeout, match=r"^exec_timeout: ") as caught:
        vm.run(["/bin/sleep", "600"], timeout_ms=500, on_output=print)
    assert caught.value.outputs.stdout == ""


def test_R31_who_does_not_want_more_ends_the_command(vm: Vm, backend: Backend) -> None:
    def enough(_: Chunk) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vm.run(backend.flood(SIZE), on_output=enough)
    assert "running" not in {old.info.state for old in vm.execs()}


def test_R31_output_goes_on_where_a_connection_was_lost(
    shared: Daemon, vm: Vm, backend: Backend, tmp_path: Path
) -> None:
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [3000, *[20_000] * 8]) as wire,
        Motte(str(wire.path)) as far,
    ):
        broken: list[Chunk] = []
        far.get(vm.id).run(backend.flood(SIZE), on_output=broken.append)
        assert wire.done == 9
    unbroken: list[Chunk] = []
    vm.run(backend.flood(SIZE), on_output=unbroken.append)
    assert joined(broken) == joined(unbroken)


@pytest.mark.linux
def test_R27_a_terminal_has_a_size(vm: Vm) -> None:
    with vm.exec("stty size; read x; stty size", pty=Pty(30, 100), stdin_open=True) as command:
        out = command.output()
        first = next(out).data
        assert first.split() == [b"30", b"100"]
        command.resize(40, 120)
        command.write("\n")
        rest = b"".join(chunk.data for chunk in out)
        assert rest.split()[-2:] == [b"40", b"120"]


def test_R27_commands_are_watched_with_asyncio_too(
    shared: Daemon, vm: Vm, backend: Backend
) -> None:
    async def main() -> None:
        async with AsyncMotte(str(shared.socket_path)) as motte:
            far = await motte.get(vm.id)
            seen: list[Chunk] = []
            done = await far.run(backend.flood(1000), on_output=seen.append)
            assert sum(len(chunk.data) for chunk in seen) == len(done.stdout) == 1000
            async with await far.exec(["/bin/cat"], stdin_open=True) as command:
                await command.write("in", end=True)
                assert [chunk.data async for chunk in command.output()] == [b"in"]

    asyncio.run(main())
