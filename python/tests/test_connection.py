"""Ways to the service, and what is sent again: tokens, sockets, restarts."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from motte import Motte, NotAllowed, Unavailable, Unreachable
from test_tcp import ADMIN, ALICE, free_port, write_tokens
from test_tls import make_certificate

Start = Callable[..., Daemon]


@pytest.mark.testguest
def test_R11_a_token_over_tcp(start: Start, tmp_path: Path, backend: Backend) -> None:
    port = free_port()
    start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    address = f"http://127.0.0.1:{port}"
    with Motte(address, token=ALICE) as alice, alice.vm(memory_mib=backend.memory_mib) as vm:
        assert vm.info.owner == "alice"
        assert vm.run(["/bin/echo", "x"]).stdout == "x\n"
        assert ALICE not in repr(alice) + repr(vars(alice)), "nor where a debugger shows it"
        with Motte(address, token=ADMIN) as admin:
            assert [found.info.owner for found in admin.vms()] == ["alice"]
    for token in (None, "wrong"):
        with Motte(address, token=token) as nobody, pytest.raises(NotAllowed) as caught:
            nobody.capabilities()
        assert str(caught.value).startswith("unauthorized: ")


@pytest.mark.testguest
def test_R11_tls_with_an_authority_of_ones_own(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, (certificate, key) = free_port(), make_certificate(tmp_path, "first")
    start(
        [
            f"--listen=tls:127.0.0.1:{port}",
            f"--tls-certificate={certificate}",
            f"--tls-key={key}",
            f"--token-file={write_tokens(tmp_path)}",
        ]
    )
    address = f"https://localhost:{port}"
    with Motte(address, token=ALICE, ca=str(certificate)) as alice:
        assert list(alice.vms()) == []
    with (
        Motte(address, token=ALICE, retry_s=0) as alice,
        pytest.raises(Unreachable, match=r"^cannot reach .*: .*certificate verify failed"),
    ):
        alice.capabilities()
    monkeypatch.setenv("MOTTE_CA", str(certificate))
    with Motte(address, token=ALICE) as alice:
        assert list(alice.vms()) == []


def test_R01_the_environment_says_where(shared: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTTE_ADDRESS", f"unix:{shared.socket_path}")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # is nobody's business here
    with Motte() as motte:
        assert str(shared.socket_path) in repr(motte)
        assert list(motte.vms()) == []
    with pytest.raises(ValueError, match="is no address"):
        Motte("localhost:7070")


def test_R01_nobody_there_reads_in_one_line(tmp_path: Path) -> None:
    with (
        Motte(str(tmp_path / "none.sock"), retry_s=0) as motte,
        pytest.raises(Unreachable, match=r"^cannot reach .*none\.sock: .*Is motted running"),
    ):
        motte.capabilities()


def test_R02_a_restart_is_waited_for(start: Start, backend: Backend) -> None:
    """Also by who would create: nothing was sent."""
    daemon = start()
    with Motte(str(daemon.socket_path), retry_s=60) as motte:
        assert list(motte.vms()) == []
        daemon.stop()
        back = threading.Thread(target=daemon.start)
        back.start()
        with motte.vm(memory_mib=backend.memory_mib) as vm:
            assert vm.info.state == "running"
        back.join()


def test_R03_a_503_is_tried_again_only_while_there_is_time(
    daemon: Daemon, contract: Contract
) -> None:
    operator = Client(contract, str(daemon.socket_path))
    motte = Motte(str(daemon.socket_path))
    operator.expect(200, "POST", "/admin/cordon")
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable, match=r"^cordoned: ") as caught:
            motte.vm()
    finally:
        operator.expect(204, "DELETE", "/admin/cordon")
        operator.close()
    assert caught.value.problem.retry_after_s == 60
    assert time.monotonic() - began < 5
