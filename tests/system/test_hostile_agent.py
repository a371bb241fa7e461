"""The guest's agent is the enemy's: every way to break the protocol, storms of connections, floods.
On real Firecracker, with the test guest as the liar (tests/guest/liar.c)."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.watch import undisturbed

pytestmark = pytest.mark.testguest

PROTOCOL = "guest_protocol"
# What a lie in an exec's answer ends with, and within which time: at once, or the command's own.
LIES = {
    "long": (502, PROTOCOL), "over": (502, PROTOCOL), "empty": (502, PROTOCOL),
    "kind": (502, PROTOCOL), "input": (502, PROTOCOL), "json": (502, PROTOCOL),
    "number": (502, PROTOCOL), "nul": (502, PROTOCOL), "id": (502, PROTOCOL),
    "negative": (502, PROTOCOL), "deep": (502, PROTOCOL), "early": (502, "guest_closed"),
    "close": (502, "guest_closed"), "silent": (504, "guest_unresponsive"),
    "endless": (504, "guest_unresponsive"),
}  # fmt: skip
GRACE_S = 5  # vsock/exec.c: what the agent has beyond the command's own time
HELLO_BOOT_MS = 2000
STORM = 20_000
PORTS = (1024, 1025, 1)
CONSOLE = 16 * 1024


def listen_to(client: Client, lie: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    body = {"argv": ["lie", lie], "timeout_ms": 200}
    response = client.request("POST", "/vms/liar/exec", json=body)
    client.close()
    return response, time.monotonic() - began


def test_R30_R31_every_lie_of_an_agent_is_a_typed_error_in_bounded_time(
    daemon: Daemon, client: Client, backend: Backend, connect: Callable[..., Client]
) -> None:
    with undisturbed(daemon, client, backend):
        client.create(id="liar", memory_mib=backend.memory_mib)
        with ThreadPoolExecutor(4) as pool:
            told = [pool.submit(listen_to, connect(daemon), lie) for lie in LIES]
            for lie, future in zip(LIES, told, strict=True):
                status, code = LIES[lie]
                response, took = future.result()
                assert (response.status_code, response.json()["code"]) == (status, code), lie
                patience = GRACE_S + 0.2 if status == 504 else 0
                assert patience - 0.1 <= took < patience + 2, f"{lie}: {took:.2f} s"
        # What it is asked next, on connections of their own, is answered.
        assert client.exec("liar", ["echo", "true"]).out == "true\n"


@pytest.mark.parametrize("lie", LIES)
def test_R31_a_lie_in_the_place_of_hello_ends_the_spawn_without_a_trace(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, lie: str
) -> None:
    daemon = start([f"--boot-timeout-ms={HELLO_BOOT_MS}"])
    client = connect(daemon)
    kernel = daemon.home / "liar"
    kernel.mkdir()
    truth = daemon.state_dir / "kernels" / "testguest" / "vmlinux"
    (kernel / "vmlinux").write_bytes(truth.read_bytes())
    (kernel / "boot_args").write_text(f"motte.lie={lie}", encoding="utf-8")
    disk = str(daemon.home / "liars-disk")
    Path(disk).write_bytes(b"lies" * 1024)
    for words in (
        ["kernel", "add", str(kernel), "--name", "liar"],
        ["image", "add", disk, "--raw", "--name", "liar", "--kernel", "liar"],
    ):
        done = daemon.admin(*words)
        assert done.returncode == 0, done.stderr
    with undisturbed(daemon, client, backend):
        began = time.monotonic()
        body = {"id": "liar", "image": "liar", "memory_mib": backend.memory_mib}
        response = client.request("POST", "/vms", json=body)
        took = time.monotonic() - began
        assert response.status_code in (502, 504), response.text
        assert response.json()["code"] in (PROTOCOL, "guest_closed", "boot_timeout"), response.text
        assert "step hello" in response.json()["detail"]
        assert took < HELLO_BOOT_MS / 1000 + 3
    client.delete("neighbour")
    daemon.assert_no_leftovers()


@pytest.mark.parametrize("port", [*PORTS, 0], ids=lambda port: f"port-{port}" if port else "every")
def test_R31_a_storm_of_connections_to_the_host_finds_nobody(
    daemon: Daemon, client: Client, backend: Backend, port: int
) -> None:
    """Nobody listens after hello, so that a guest has no way to make the host hold sockets."""
    with undisturbed(daemon, client, backend):
        client.create(id="storm", memory_mib=backend.memory_mib)
        words = ["storm", str(STORM), *([str(port)] if port else [])]
        done = client.exec("storm", words, timeout_ms=120_000)
        assert done.out == "opened 0\n", done


def test_R31_a_flood_of_the_console_is_dropped_beyond_what_is_kept(
    daemon: Daemon, client: Client, backend: Backend
) -> None:
    """Small, because each character costs an exit of KVM here; a Linux guest writes more of it."""
    with undisturbed(daemon, client, backend):
        client.create(id="loud", memory_mib=backend.memory_mib)
        client.exec("loud", ["console", str(CONSOLE)], timeout_ms=120_000)
        assert client.exec("loud", ["echo", "heard"]).out == "heard\n"
        inventory = daemon.state_dir / "front"  # has the last words of VMs that ended before
        kept = [
            path
            for path in daemon.home.rglob("*")
            if path.is_file() and path != daemon.disk and inventory not in path.parents
        ]
        assert all(b"x" * 60 not in Path(path).read_bytes() for path in kept)


def test_R31_many_silent_agents_leave_the_service_its_workers(
    daemon: Daemon, client: Client, backend: Backend, connect: Callable[..., Client]
) -> None:
    """Commands that never answer take workers of exec's pool, and give them back."""
    with undisturbed(daemon, client, backend):
        client.create(id="silent", memory_mib=backend.memory_mib)
        clients = [connect(daemon) for _ in range(12)]
        body = {"argv": ["lie", "silent"], "timeout_ms": 100}
        with ThreadPoolExecutor(len(clients)) as pool:
            answers = list(
                pool.map(lambda c: c.request("POST", "/vms/silent/exec", json=body), clients)
            )
        for one in clients:
            one.close()
        assert {a.status_code for a in answers} <= {504, 503}, [a.text for a in answers]
        assert client.exec("silent", ["echo", "back"]).out == "back\n"
