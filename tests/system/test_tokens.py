"""`motted token`: made, listed and revoked while the service runs."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.waiting import wait_until
from test_reload import Configured
from test_tcp import ALICE, bearer, free_port

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower


class Tokens:
    """One tokens file and the command for it."""

    def __init__(self, daemon: Daemon, path: Path) -> None:
        self.daemon, self.path = daemon, path

    def run(self, *words: str, status: int = 0) -> tuple[str, str]:
        done = self.daemon.admin("token", *words, f"--token-file={self.path}")
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def create(self, *words: str) -> str:
        out, _ = self.run("create", *words)
        assert re.fullmatch(r"motte_[0-9a-f]{64}\n", out)
        return out.strip()


def test_R11_a_token_is_made_listed_and_revoked_at_once(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path
) -> None:
    path, port = tmp_path / "tokens", free_port()
    options = [f"--listen=tcp:127.0.0.1:{port}", f"--token-file={path}"]
    daemon = start(options, running=False)
    tokens = Tokens(daemon, path)
    first = tokens.create("first")
    daemon.start()
    address = f"http://127.0.0.1:{port}"
    connect(address, bearer(first)).list()
    ci = tokens.create("ci", "--tenant=acme", "--role=operate")
    look = tokens.create("look", "--tenant=acme", "--role=read")
    boss = tokens.create("boss", "--role=admin")
    connect(address, bearer(ci)).problem(404, "vm_not_found", "DELETE", "/vms/x")
    connect(address, bearer(look)).problem(403, "forbidden", "DELETE", "/vms/x")
    connect(address, bearer(boss)).expect(200, "GET", "/admin/cordon")
    listed = json.loads(tokens.run("list", "--json")[0])
    assert listed[1] == {"name": "ci", "role": "operate", "tenant": "acme"}
    assert [token["name"] for token in listed] == ["first", "ci", "look", "boss"]
    assert re.search(r"^look +read +acme$", tokens.run("list")[0], re.M)
    client = connect(address, bearer(ci))
    client.list()
    assert "tokens read from" in tokens.run("revoke", "ci")[1]
    client.problem(401, "unauthorized", "GET", "/vms")  # on the connection that stands
    connect(address, bearer(look)).list()
    wait_until(lambda: "caller=acme token=look" in daemon.log)
    assert path.stat().st_mode & 0o777 == 0o600
    stored = path.read_text()
    for secret in (first, ci, look, boss):
        assert secret not in stored
        assert secret not in daemon.log


def test_R11_what_is_no_token_is_refused_and_the_file_stays(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    tokens = Tokens(start(running=False), tmp_path / "tokens")
    tokens.path.write_text("# ours\n", encoding="utf-8")
    tokens.create("ci")
    tokens.path.write_text(tokens.path.read_text() + "# the end", encoding="utf-8")
    tokens.create("ci2")
    before = tokens.path.read_text()
    for words, said in (
        (["create", "ci"], "There is a token `ci`"),
        (["create", "root"], "not root"),
        (["create", "x", "--tenant=root"], "not root"),
        (["create", "x", "--tenant=A"], "no name of a tenant"),
        (["create", "x", "--role=chief"], "read, operate and admin"),
        (["create"], "missing"),
        (["revoke", "c"], "There is no token `c`"),
        (["revoke"], "missing"),
    ):
        assert said in tokens.run(*words, status=2)[1]
        assert tokens.path.read_text() == before
    tokens.run("revoke", "ci")
    left = tokens.path.read_text().splitlines()
    assert [line.split(" =")[0] for line in left] == ["# ours", "# the end", "ci2"]
    tokens.run("revoke", "ci2")
    assert json.loads(tokens.run("list", "--json")[0]) == []


@pytest.fixture
def configured(
    backend: Backend, keeper: object, start: object, tmp_path: Path
) -> Iterator[Configured]:
    daemon = Configured(backend, tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


def hung_up(pid: int) -> bool:
    """A SIGHUP waits for the process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    pending = re.search(r"^ShdPnd:\s*([0-9a-f]+)$", status, re.M)
    assert pending is not None
    return bool(int(pending.group(1), 16) & 1 << (signal.SIGHUP - 1))


def states(pid: int) -> set[str]:
    """Of the process's threads: R, S, T …"""
    stats = (path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return {stat.rpartition(") ")[2][0] for stat in stats}


def test_R11_the_word_of_an_earlier_reload_is_not_taken_for_an_answer(
    configured: Configured, connect: Callable[..., Client]
) -> None:
    """One is under way, and was good, when a token is revoked; the next one is refused."""
    tokens, root, front = (
        Tokens(configured, configured.tokens),
        configured.pid,
        configured.front_pid,
    )
    with ThreadPoolExecutor(1) as pool:
        os.kill(front, signal.SIGSTOP)
        os.kill(root, signal.SIGHUP)
        wait_until(lambda: not hung_up(root) and states(root) == {"S"}, 20, "it has not begun")
        os.kill(root, signal.SIGSTOP)
        os.kill(front, signal.SIGCONT)
        wait_until(lambda: states(front) == {"S"}, 20, "the front does not answer")
        os.kill(front, signal.SIGSTOP)
        configured.write(quota="nothing")  # which the front alone can say
        revoked = pool.submit(tokens.run, "revoke", "alice", status=1)
        wait_until(lambda: hung_up(root), 20, "nobody asks it to reload")
        os.kill(root, signal.SIGCONT)
        assert not wait({revoked}, 0.3).done, "time in which the word of the first is there"
        os.kill(front, signal.SIGCONT)
        assert "reload refused" in revoked.result(30)[1]
    connect(configured.address, bearer(ALICE)).list()


def test_R11_a_revocation_that_was_not_taken_is_told(
    configured: Configured, connect: Callable[..., Client]
) -> None:
    tokens = Tokens(configured, configured.tokens)
    alice = connect(configured.address, bearer(ALICE))
    configured.write(max_vms="many")
    said = tokens.run("revoke", "alice", status=1)[1]
    assert "reload refused" in said
    assert "max-vms" in said
    alice.list()
    configured.write()
    configured.reload()
    alice.problem(401, "unauthorized", "GET", "/vms")
    elsewhere = Tokens(configured, configured.home / "others")
    assert "does not read" in elsewhere.run("create", "x", status=1)[1]
