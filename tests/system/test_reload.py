"""SIGHUP: a good configuration takes effect and nobody notices, a bad one changes nothing."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.events import Events
from harness.waiting import wait_until
from test_tcp import ALICE, BOB, TOKENS, bearer, free_port, token_line, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

CAROL = "carol-3333344444-qrstuvwxyz"
RELOADED, REFUSED = "motted info: reloaded: ", "reload refused, all stays as it was: "


class Configured(Daemon):
    """Its options stand in a file, but for those that make it a daemon of its own."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        super().__init__(backend)
        self.port = free_port()
        self.tokens = write_tokens(folder)
        self.file = self.home / "motted.conf"
        self.fixed = {"listen": f"tcp:127.0.0.1:{self.port}", "token-file": str(self.tokens)}
        self.live = {"default-image": backend.image, "boot-timeout-ms": "20000", "max-vms": "50"}
        self.options = [f"--config={self.file}"]
        self.write()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        mine = ("--default-image=", "--boot-timeout-ms=", "--listen=")
        return [word for word in super().command() if not word.startswith(mine)]

    def write(self, **changed: str) -> None:
        options = {**self.fixed, **self.live}
        options |= {key.replace("_", "-"): value for key, value in changed.items()}
        self.file.write_text("".join(f"{key} = {value}\n" for key, value in options.items()))

    def _answers(self) -> list[str]:
        return [line for line in self.log.splitlines() if RELOADED in line or REFUSED in line]

    def reload(self) -> str:
        """What the log then says."""
        before = len(self._answers())
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: len(self._answers()) > before, what=f"no word of it: {self.log[-500:]}")
        return self._answers()[-1]


@pytest.fixture
def daemon(backend: Backend, keeper: object, start: object, tmp_path: Path) -> Iterator[Configured]:
    daemon = Configured(backend, tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


def test_R02_no_request_and_no_vm_notices_a_reload(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    """Connections without end, a command that outlasts all reloads, and the VM's process."""
    alice = connect(daemon.address, bearer(ALICE))
    alice.create(id="on", memory_mib=backend.memory_mib)
    before, front = daemon.vmms(), daemon.front_pid
    failures: list[str] = []
    asked = [0, 0]
    over = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            connection = HTTPConnection("127.0.0.1", daemon.port, timeout=20)
            try:
                connection.request("GET", "/vms", headers=bearer(ALICE))
                status = connection.getresponse().status
                if status != 200:
                    failures.append(str(status))
            except (OSError, HTTPException) as error:
                failures.append(repr(error))
            connection.close()
            asked[number] += 1

    def run() -> None:
        result = connect(daemon.address, bearer(ALICE)).exec("on", ["/bin/sleep", "4"])
        if result.code != 0:
            failures.append(str(result))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
    command = threading.Thread(target=run)
    for thread in (*threads, command):
        thread.start()
    turns = 0
    while command.is_alive():
        daemon.write(max_vms=str(10 + turns % 7), log_level=("info", "debug")[turns % 2])
        write_tokens(daemon.tokens.parent, TOKENS + token_line(f"extra{turns}", f"{CAROL}{turns}"))
        assert RELOADED in daemon.reload()
        turns += 1
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert turns >= 10
    assert min(asked) >= 50
    assert (daemon.vmms(), daemon.front_pid) == (before, front)
    assert alice.exec("on", ["/bin/echo", "on"]).out == "on\n"


def test_R11_tokens_come_and_go_with_a_reload(
    daemon: Configured, connect: Callable[..., Client]
) -> None:
    alice, bob, carol = (connect(daemon.address, bearer(token)) for token in (ALICE, BOB, CAROL))
    carol.problem(401, "unauthorized", "GET", "/vms")
    alice.list()
    write_tokens(daemon.tokens.parent, token_line("bob", BOB) + token_line("carol", CAROL))
    carol.problem(401, "unauthorized", "GET", "/vms")
    assert "tokens read" in daemon.reload()
    assert carol.list() == []
    bob.list()
    alice.problem(401, "unauthorized", "GET", "/vms")
    assert not any(token in daemon.log for token in (ALICE, BOB, CAROL))


def test_R09_limits_and_defaults_change_with_a_reload(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(daemon.address, bearer(ALICE))
    client.create(id="first", memory_mib=backend.memory_mib)
    daemon.write(max_vms="1", max_vcpus="4", default_image="missing", log_level="debug")
    said = daemon.reload()
    for key in ("max-vms", "max-vcpus", "default-image", "log-level"):
        assert key in said
    assert "boot-timeout-ms" not in said
    spec = {"memory_mib": backend.memory_mib, "image": backend.image}
    client.problem(503, "capacity_exhausted", "POST", "/vms", json=spec)
    wait_until(
        lambda: client.expect(200, "GET", "/capabilities").json()["limits"]["max_vcpus"] == 4
    )
    client.problem(404, "image_not_found", "POST", "/vms", json={})
    assert client.expect(200, "GET", "/images").json()["default"] == "missing"
    client.expect(200, "GET", "/healthz")
    # The line is written when the answer has left.
    wait_until(lambda: "motte-front debug: GET /healthz 200" in daemon.log)
    daemon.write(max_vms="2", memory_overcommit="0.1", max_memory_mib="200")
    daemon.reload()
    client.create(id="second", **spec)
    wait_until(
        lambda: client.expect(200, "GET", "/capabilities").json()["limits"]["max_memory_mib"] == 200
    )
    too_much = {"memory_mib": 201}
    client.problem(400, "out_of_range", "POST", "/vms", json=too_much)
    client.exec("first", ["/bin/echo", "on"])


FIXED = [
    ("state_dir", "/tmp/elsewhere"),  # noqa: S108: nobody makes it
    ("run_dir", "/tmp/elsewhere"),
    ("cgroup", "other"),
    ("uid_base", "2000000000"),
    ("uid_count", "1000"),
    ("hypervisor", "qemu"),
    ("firecracker", "/bin/true"),
    ("front_user", "daemon"),
    ("without", "cgroup"),
    ("max_iops", "5"),
    ("listen", "tcp:127.0.0.1:1"),
    ("metrics_listen", "tcp:127.0.0.1:2"),
    ("dev", "true"),
]


def test_R02_what_needs_a_restart_is_refused_by_name(
    daemon: Configured, connect: Callable[..., Client]
) -> None:
    """Options on the command line win over the file: these are left out of it for the test."""
    shown = {word.split("=")[0].removeprefix("--") for word in daemon.command()[1:]}
    for key, value in FIXED:
        option = key.replace("_", "-")
        daemon.write(max_vms="7", **{key: value})
        said = daemon.reload()
        if option in shown:
            assert RELOADED in said, option
            continue
        assert REFUSED in said, option
        assert f"{option} cannot change while motted runs" in said
    daemon.write(max_vms="50")
    daemon.reload()
    connect(daemon.address, bearer(ALICE)).list()


BAD_FILES = [
    ("max-vms = many\n", "max-vms"),
    ("max-vms\n", "motted.conf:"),
    ("colour = red\n", "no such option: colour"),
    ("log-level = loud\n", "log-level"),
]
BAD_TOKENS = [
    (f"carol = {CAROL}\n", 0o600, "motted token create"),
    (token_line("carol", CAROL, "chief"), 0o600, "no role"),
    (token_line("carol", CAROL), 0o644, "chmod 600"),
    (token_line("root", CAROL), 0o600, "root"),
    (token_line("carol", CAROL) + token_line("mallory", CAROL), 0o600, "twice"),
]


def test_R02_a_bad_configuration_is_refused_and_the_old_one_stays(
    daemon: Configured, connect: Callable[..., Client]
) -> None:
    client = connect(daemon.address, bearer(ALICE))
    front = daemon.front_pid

    def unchanged() -> None:
        connect(daemon.address, bearer(ALICE)).list()
        connect(daemon.address, bearer(CAROL)).problem(401, "unauthorized", "GET", "/vms")
        limits = client.expect(200, "GET", "/capabilities").json()["limits"]
        assert (limits["max_vms"], limits["max_vcpus"]) == (50, 32)
        assert client.expect(200, "GET", "/images").json()["default"] == daemon.backend.image
        assert daemon.front_pid == front

    for text, words in BAD_FILES:
        daemon.write(max_vcpus="2")
        with daemon.file.open("a") as file:
            file.write(text)
        said = daemon.reload()
        assert REFUSED in said
        assert words in said
        unchanged()
    daemon.write(max_vcpus="2")
    daemon.file.chmod(0o666)
    assert "chmod go-w" in daemon.reload()
    daemon.file.chmod(0o600)
    daemon.write(max_vcpus="2", default_image="missing")
    for text, mode, words in BAD_TOKENS:
        write_tokens(daemon.tokens.parent, text, mode)
        said = daemon.reload()
        assert REFUSED in said, text
        assert words in said
        assert CAROL not in said
        unchanged()
    daemon.tokens.unlink()
    assert "No such file" in daemon.reload()
    daemon.fixed.pop("token-file")
    daemon.write(max_vcpus="2")
    assert "token" in daemon.reload()
    unchanged()


def test_R11_what_a_revoked_token_watches_and_waits_for_ends(
    daemon: Configured, connect: Callable[..., Client], backend: Backend
) -> None:
    carols = TOKENS + token_line("carol", CAROL, "operate", "alice")
    write_tokens(daemon.tokens.parent, carols)
    daemon.reload()
    alice = connect(daemon.address, bearer(ALICE))
    alice.create(id="seen", memory_mib=backend.memory_mib)
    begun = alice.expect(
        202,
        "POST",
        "/vms/seen/execs",
        json={"argv": ["/bin/sleep", "86400"], "timeout_ms": 600_000},
        headers={"Prefer": "respond-async"},
    )
    console, events = "/vms/seen/console?follow=true", begun.headers["location"] + "/events"
    paused = {"state": "paused", "timeout_s": "60"}

    def wait() -> int:
        carol = connect(daemon.address, bearer(CAROL))
        return carol.request("GET", "/vms/seen/wait", params=paused).status_code

    def watch(target: str, token: str) -> Events:
        return Events(daemon.port, target, headers=bearer(token), seconds=20)

    with (
        ThreadPoolExecutor(1) as waiting,
        watch(console, CAROL) as hers,
        watch(events, CAROL) as her_command,
        watch(console, ALICE) as his,
    ):
        answer = waiting.submit(wait)
        assert (hers.status, her_command.status, his.status) == (200, 200, 200)
        write_tokens(daemon.tokens.parent, carols + token_line("dora", CAROL + "x", "read", "dora"))
        daemon.reload()
        alice.exec("seen", ["chatter", "400"])
        assert next(iter(hers)).name == "console"
        write_tokens(daemon.tokens.parent)
        daemon.reload()
        assert answer.result(20) == 401
        alice.delete("seen")  # who still watched would see it
        for stream in (hers, her_command):
            assert all(event.name != "end" for event in stream)
        assert [event.name for event in his][-1] == "end"
    for target in (console, events):
        assert watch(target, CAROL).status == 401
