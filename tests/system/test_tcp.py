"""TCP: a bearer token names the caller, and without one nothing is served or said."""

import hashlib
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon

ALICE = "alice-0123456789-abcdefghij"
BOB = "bob-9876543210-zyxwvutsrq"
ADMIN = "admin-5555566666-mnopqrstuv"


def token_line(name: str, secret: str, role: str = "operate", tenant: str | None = None) -> str:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f"{name} = {role} {tenant or name} sha256:{digest}\n"


TOKENS = token_line("alice", ALICE) + token_line("bob", BOB) + token_line("admin", ADMIN, "admin")


def free_port() -> int:
    """In this network namespace, which nobody else uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def write_tokens(folder: Path, text: str = TOKENS, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def address(start: Callable[..., Daemon], tmp_path: Path) -> str:
    port = free_port()
    start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path)}"])
    return f"http://127.0.0.1:{port}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_R11_without_a_token_nothing_is_served(
    address: str, connect: Callable[..., Client]
) -> None:
    nobody = connect(address)
    for method, path in (("GET", "/vms"), ("POST", "/vms"), ("GET", "/vms/x"), ("GET", "/metrics")):
        nobody.problem(401, "unauthorized", method, path)
    assert nobody.request("GET", "/vms").headers["www-authenticate"].startswith("Bearer")
    assert nobody.request("GET", "/healthz").status_code == 200
    for wrong in (ALICE[:-1], ALICE + "x", "x", BOB.upper(), "alice"):
        connect(address, bearer(wrong)).problem(401, "unauthorized", "GET", "/vms")
    connect(address, {"Authorization": f"Basic {ALICE}"}).problem(
        401, "unauthorized", "GET", "/vms"
    )


def test_R11_a_body_is_not_read_without_a_token(address: str) -> None:
    host_name, port = re.fullmatch(r"http://([^:]+):(\d+)", address).groups()  # type: ignore[union-attr]
    with socket.create_connection((host_name, int(port)), timeout=10) as sock:
        sock.sendall(
            b"POST /vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 16000\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_R11_callers_see_only_their_own(
    address: str, connect: Callable[..., Client], backend: Backend
) -> None:
    alice, bob, admin = (connect(address, bearer(token)) for token in (ALICE, BOB, ADMIN))
    vm = alice.create(id="same", memory_mib=backend.memory_mib)
    assert vm["owner"] == "alice"
    assert bob.list() == []
    bob.problem(404, "vm_not_found", "GET", "/vms/same")
    bob.problem(404, "vm_not_found", "DELETE", "/vms/same")
    bob.problem(404, "vm_not_found", "POST", "/vms/same/exec", json={"argv": ["/bin/true"]})
    bob.problem(404, "vm_not_found", "POST", "/vms/same/execs", json={"argv": ["/bin/true"]})
    bob.problem(404, "vm_not_found", "GET", "/vms/same/audit")
    for verb in ("pause", "resume"):
        bob.problem(404, "vm_not_found", "POST", f"/vms/same/{verb}")
    audit = alice.expect(200, "GET", "/vms/same/audit").json()
    assert {entry["owner"] for entry in audit["entries"]} == {"alice"}
    assert admin.expect(200, "GET", "/vms/same/audit").json() == audit
    of_alice = alice.expect(201, "POST", "/vms/same/execs", json={"argv": ["/bin/true"]})
    other = bob.create(id="same", memory_mib=backend.memory_mib)
    path = of_alice.headers["location"]
    bob.problem(404, "exec_not_found", "GET", path)
    bob.problem(404, "exec_not_found", "DELETE", path)
    assert bob.expect(200, "GET", "/vms/same/execs").json() == {"execs": []}
    assert admin.expect(200, "GET", path).json() == alice.expect(200, "GET", path).json()
    assert other["instance"] != vm["instance"]
    assert {found["owner"] for found in admin.list()} == {"alice", "bob"}
    bob.delete("same")
    assert alice.exec("same", ["/bin/echo", "mine"]).out == "mine\n"
    alice.delete("same")


def refused_start(daemon: Daemon) -> str:
    process = daemon.spawn()
    assert process.wait(timeout=30) != 0
    return daemon.log


def test_R11_tcp_without_a_token_file_is_refused(start: Callable[..., Daemon]) -> None:
    daemon = start([f"--listen=tcp:127.0.0.1:{free_port()}"], running=False)
    assert "token" in refused_start(daemon)


@pytest.mark.parametrize("host_name", ["0.0.0.0", "192.0.2.1"])
def test_R11_tcp_beyond_loopback_is_refused(
    start: Callable[..., Daemon], tmp_path: Path, host_name: str
) -> None:
    options = [f"--listen=tcp:{host_name}:7070", f"--token-file={write_tokens(tmp_path)}"]
    assert "127.0.0.1" in refused_start(start(options, running=False))


@pytest.mark.parametrize(
    ("text", "mode"),
    [("alice = changeme\n", 0o600), (TOKENS, 0o644)],
    ids=["not-hashed", "readable-by-others"],
)
def test_R11_token_files_that_protect_nothing_are_refused(
    start: Callable[..., Daemon], tmp_path: Path, text: str, mode: int
) -> None:
    path = write_tokens(tmp_path, text, mode)
    options = [f"--listen=tcp:127.0.0.1:{free_port()}", f"--token-file={path}"]
    log = refused_start(start(options, running=False))
    assert "token" in log
    assert "changeme" not in log
    assert ALICE not in log


def test_R11_the_unix_socket_is_for_root_and_its_group(
    start: Callable[..., Daemon], connect: Callable[..., Client]
) -> None:
    daemon = start()
    assert daemon.socket_path.stat().st_mode & 0o777 == 0o660
    connect(daemon).list()
    stranger = subprocess.run(
        [
            "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
            "curl", "-sS", "--unix-socket", str(daemon.socket_path), "http://motte/vms",
        ],
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert stranger.returncode != 0
    assert stranger.stdout == ""
