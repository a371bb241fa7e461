"""Commands in a VM: what they print, how they end, what they may not do to the service."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon

OUTPUT_MAX = 1024 * 1024


@pytest.fixture(scope="module")
def vm(shared: Daemon, contract: object, backend: Backend) -> Iterator[str]:
    """One VM for the whole file: commands must not disturb each other."""
    from harness.contract import Contract

    assert isinstance(contract, Contract)
    client = Client(contract, str(shared.socket_path))
    client.create(id="exec", memory_mib=backend.memory_mib)
    yield "exec"
    client.delete("exec")
    client.close()


@pytest.fixture
def client(shared: Daemon, contract: object, connect: Callable[..., Client]) -> Client:
    """Without the emptying of the shared daemon: the VM lives through the file."""
    return connect(shared)


def test_R27_output_error_and_code(client: Client, vm: str, backend: Backend) -> None:
    assert client.exec(vm, ["/bin/echo", "a", "b"]).out == "a b\n"
    assert client.exec(vm, backend.to_stderr("oops")).err == "oops\n"
    assert client.exec(vm, backend.exit_with(7)).code == 7


def test_R27_input_comes_back(client: Client, vm: str) -> None:
    text = "".join(f"line {number}: äöü \u2028 \U0001f3f0\n" for number in range(3000))
    assert client.exec(vm, ["/bin/cat"], stdin=text).out == text


def test_R27_no_input_is_an_empty_input(client: Client, vm: str) -> None:
    assert client.exec(vm, ["/bin/cat"]).out == ""


def test_R27_an_unknown_command_says_so(client: Client, vm: str) -> None:
    response = client.request("POST", f"/vms/{vm}/exec", json={"argv": ["/no/such/program"]})
    if response.status_code == 200:
        body = response.json()
        assert body["exit_code"] == 127
        assert body["stderr"]
    else:
        assert (response.status_code, response.json()["code"]) == (422, "guest_refused")


@pytest.mark.linux
def test_R27_env_cwd_and_user(client: Client, vm: str) -> None:
    script = 'echo "$COLOUR $(pwd) $(id -un)"'
    done = client.exec(
        vm, ["/bin/sh", "-c", script], env={"COLOUR": "red"}, cwd="/tmp", user="nobody"
    )
    assert done.out == "red /tmp nobody\n"


@pytest.mark.core
@pytest.mark.linux
def test_R27_python_one_liner(client: Client, vm: str) -> None:
    done = client.exec(vm, ["python3", "-c", "print(sum(range(10)))"], timeout_ms=120000)
    assert (done.code, done.out) == (0, "45\n"), done


@pytest.mark.linux
def test_R27_shell_and_signal(client: Client, vm: str) -> None:
    body = client.expect(200, "POST", f"/vms/{vm}/exec", json={"shell": "kill -9 $$"}).json()
    assert (body["exit_code"], body["signal"]) == (None, 9)


def test_R31_a_command_that_outlives_its_time_is_ended(
    client: Client, vm: str, backend: Backend
) -> None:
    began = time.monotonic()
    body = client.problem(
        504,
        "exec_timeout",
        "POST",
        f"/vms/{vm}/exec",
        json={"argv": ["/bin/sleep", "3600"], "timeout_ms": 1000},
    )
    took = time.monotonic() - began
    assert 0.9 <= took <= (25 if backend.emulated else 10), took
    assert "stdout" in body["context"]
    assert client.exec(vm, ["/bin/echo", "alive"]).out == "alive\n"


@pytest.mark.core
@pytest.mark.linux
def test_R31_the_whole_tree_ends_with_it(client: Client, vm: str) -> None:
    script = "echo begun; setsid sleep 98765 & (setsid sh -c 'sleep 98765 & wait') & sleep 98765"
    body = client.problem(
        504,
        "exec_timeout",
        "POST",
        f"/vms/{vm}/exec",
        json={"argv": ["/bin/sh", "-c", script], "timeout_ms": 3000},
    )
    assert body["context"]["stdout"] == "begun\n"
    survivors = client.exec(
        vm, ["/bin/sh", "-c", "grep -lsa 98765 /proc/[0-9]*/cmdline | grep -v self | wc -l"]
    )
    mine = 2  # the shell that asks and its grep have the number in their own command lines
    assert int(survivors.out) <= mine, survivors.out


@pytest.mark.linux
def test_R31_a_grandchild_that_holds_the_output_does_not_hold_the_answer(
    client: Client, vm: str
) -> None:
    began = time.monotonic()
    done = client.exec(vm, ["/bin/sh", "-c", "sleep 600 & echo done"], timeout_ms=60000)
    assert done.out == "done\n"
    assert time.monotonic() - began < 30


@pytest.mark.linux
def test_R26_a_fork_bomb_does_not_silence_the_agent(client: Client, vm: str) -> None:
    bomb = "f() { f | f & }; f; sleep 600"
    response = client.request(
        "POST", f"/vms/{vm}/exec", json={"argv": ["/bin/sh", "-c", bomb], "timeout_ms": 5000}
    )
    assert response.status_code in (200, 504), response.text
    assert client.exec(vm, ["/bin/echo", "alive"], timeout_ms=60000).out == "alive\n"


def rss_mib(pid: int) -> int:
    return int(host.status_of(pid)["VmRSS"].split()[0]) // 1024


def test_R31_output_without_end_is_bounded_and_flagged(
    client: Client, vm: str, backend: Backend, shared: Daemon
) -> None:
    count = 20_000_000 if backend.linux else 100_000_000
    before = rss_mib(shared.front_pid)
    done = client.exec(vm, backend.flood(count), timeout_ms=240000)
    assert len(done.body["stdout"]) <= OUTPUT_MAX
    assert len(done.out) >= OUTPUT_MAX // 2
    assert done.body["stdout_truncated"] is True
    assert done.body["stderr_truncated"] is False
    assert rss_mib(shared.front_pid) - before < 24
    assert client.exec(vm, ["/bin/echo", "alive"]).out == "alive\n"


def test_R30_many_commands_at_once_do_not_cross(
    vm: str, shared: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    threads = 4 if backend.emulated else 16
    words = [f"word-{number}" for number in range(threads * 4)]
    clients = [connect(shared) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        answers = list(
            pool.map(
                lambda pair: clients[pair[0] % threads].exec(vm, ["/bin/echo", pair[1]]).out,
                enumerate(words),
            )
        )
    assert answers == [f"{word}\n" for word in words]


def test_R31_a_caller_that_leaves_does_not_disturb_the_next(
    client: Client, vm: str, shared: Daemon
) -> None:
    import socket

    body = b'{"argv": ["/bin/sleep", "2"], "timeout_ms": 3000}'
    head = (
        f"POST /vms/{vm}/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(shared.socket_path))
            sock.sendall(head.encode() + body)
    assert client.exec(vm, ["/bin/echo", "next"], timeout_ms=30000).out == "next\n"


def test_R31_exec_in_a_vm_that_is_gone(client: Client, vm: str, backend: Backend) -> None:
    client.create(id="short", memory_mib=backend.memory_mib)
    client.delete("short")
    client.problem(404, "vm_gone", "POST", "/vms/short/exec", json={"argv": ["true"]})


def test_R31_delete_ends_a_command_that_runs(
    client: Client, vm: str, shared: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    client.create(id="busy", memory_mib=backend.memory_mib)
    other = connect(shared)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            other.request,
            "POST",
            "/vms/busy/exec",
            json={"argv": ["/bin/sleep", "600"], "timeout_ms": 600000},
        )
        began = time.monotonic()
        client.delete("busy")
        response = running.result(timeout=30)
    assert time.monotonic() - began < 20
    assert response.status_code in (404, 409, 502), response.text
