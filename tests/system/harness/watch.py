"""What an attack must not disturb, measured while it goes on: the service answers, a neighbour's
commands work, both halves keep their memory and descriptors, the image stays as it was."""

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from . import host
from .backend import Backend
from .client import Client
from .daemon import Daemon
from .waiting import wait_until

NEIGHBOUR = "neighbour"
HEALTH_P99_S = 0.25  # of GET /healthz; the machine's two processors are shared with the attack
SLOWER = 10  # a neighbour's command may take so many times as long as before, or FLOOR_S
FLOOR_S = {"firecracker": 0.25, "qemu": 3.0, "firecracker-linux": 60.0}
HEALTH_FLOOR = {"firecracker": 1, "qemu": 4, "firecracker-linux": 40}
GROWTH_MIB = 16  # of either half


@dataclass
class Half:
    rss_mib: float
    fds: list[str]  # what each descriptor is


def half(pid: int) -> Half:
    rss = int(host.status_of(pid)["VmRSS"].split()[0]) / 1024
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return Half(rss, sorted(found))


@dataclass
class Watch:
    daemon: Daemon
    backend: Backend
    client: Client  # the thread's own
    health: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def _timed(self, into: list[float], what: Callable[[], bool]) -> None:
        began = time.monotonic()
        try:
            if not what():
                self.failures.append(f"wrong answer {len(into)}")
        except Exception as error:  # whatever it is, it is the neighbour's misfortune
            self.failures.append(repr(error)[:500])
        into.append(time.monotonic() - began)

    def _healthy(self) -> bool:
        return self.client.request("GET", "/healthz").status_code == 200

    def _answers(self) -> bool:
        return self.client.exec(NEIGHBOUR, ["/bin/echo", "well"]).out == "well\n"

    def once(self) -> None:
        for _ in range(4):
            self._timed(self.health, self._healthy)
        self._timed(self.commands, self._answers)

    def _loop(self) -> None:
        while not self._over.is_set():
            self.once()
            self._over.wait(0.01)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._loop)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def at_percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def settled(pid: int, before: Half, seconds: float = 45) -> Half:
    """Descriptors of connections that the attack left are closed a moment later; those of callers
    that went away unseen, after 30 s (INACTIVE_S of server/server.c)."""
    with suppress(TimeoutError):
        wait_until(lambda: len(half(pid).fds) <= len(before.fds), seconds)
    return half(pid)


@contextmanager
def undisturbed(daemon: Daemon, client: Client, backend: Backend) -> Iterator[Watch]:
    """Makes the neighbour if there is none, and judges after the attack, without the VMs that the
    attack made."""
    there = {vm["id"] for vm in client.list(limit=500)}
    if NEIGHBOUR not in there:
        client.create(id=NEIGHBOUR, memory_mib=backend.memory_mib)
    before_attack = daemon.first_digest
    own = Client(client.contract, str(daemon.socket_path))
    watch = Watch(daemon, backend, own)
    try:
        for _ in range(3):
            watch.once()
        usual = statistics.median(watch.commands)
        watch.health.clear()
        watch.commands.clear()
        pids = {"root half": daemon.pid, "front": daemon.front_pid}
        before = {name: half(pid) for name, pid in pids.items()}
        with watch.going_on():
            yield watch
        watch.once()
        for vm in client.list(limit=500):
            if vm["id"] not in there | {NEIGHBOUR}:
                client.delete(vm["id"])
        assert watch.failures == []
        p99 = at_percentile(watch.health, 99)
        assert p99 <= HEALTH_P99_S * HEALTH_FLOOR[backend.kind], f"/healthz p99 {p99:.3f} s"
        slow = at_percentile(watch.commands, 90)
        allowed = max(SLOWER * usual, FLOOR_S[backend.kind])
        assert slow <= allowed, f"neighbour: {slow:.3f} s in the place of {usual:.3f} s"
        for name, pid in pids.items():
            now = settled(pid, before[name])
            assert now.rss_mib - before[name].rss_mib < GROWTH_MIB, f"{name} grew: {now}"
            kept = Counter(now.fds) - Counter(before[name].fds)
            assert len(now.fds) <= len(before[name].fds), f"{name} keeps descriptors: {kept}"
        assert daemon.disk_digest() == before_attack, "the image is another one"
    finally:
        own.close()
