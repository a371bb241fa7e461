"""Connections that break: nothing is done twice, and no byte is lost or comes twice."""

from pathlib import Path

import pytest

from cutter import REQUEST, Cutter
from harness.backend import Backend
from harness.daemon import Daemon
from motte import Motte, Unreachable


@pytest.mark.testguest
@pytest.mark.parametrize("cut", [REQUEST, 0, 100], ids=["request", "answer", "headers"])
def test_R02_a_create_whose_answer_is_lost_makes_one_vm(
    daemon: Daemon, backend: Backend, tmp_path: Path, cut: int
) -> None:
    """Also where it is still being worked on: then its answer is waited for."""
    with (
        Cutter(tmp_path / "wire", daemon.socket_path, [cut, 0]) as wire,
        Motte(str(wire.path)) as motte,
        motte.vm(memory_mib=backend.memory_mib) as vm,
    ):
        assert wire.done == 2
        assert [found.id for found in motte.vms()] == [vm.id]
        assert vm.run(["/bin/echo", "here"]).stdout == "here\n"


@pytest.mark.testguest
def test_R02_what_is_not_mended_in_time_reads_in_one_line(daemon: Daemon, tmp_path: Path) -> None:
    with (
        Cutter(tmp_path / "wire", daemon.socket_path, [0] * 1000) as wire,
        Motte(str(wire.path), retry_s=0.2) as motte,
        pytest.raises(Unreachable, match=r"^the connection to .*wire ended during GET /images: "),
    ):
        motte.images()
    assert wire.done > 1


@pytest.mark.linux
def test_R27_a_command_whose_answer_is_lost_runs_once(
    daemon: Daemon, motte: Motte, backend: Backend, tmp_path: Path
) -> None:
    with (
        motte.vm(id="once", memory_mib=backend.memory_mib) as vm,
        Cutter(tmp_path / "wire", daemon.socket_path, [REQUEST, 0, 50]) as wire,
        Motte(str(wire.path)) as far,
    ):
        assert far.get("once").info.instance == vm.info.instance
        done = far.get("once").run("sleep 1; echo x >>/root/ran; cat /root/ran")
        assert done.stdout == "x\n"
        assert wire.done == 3
