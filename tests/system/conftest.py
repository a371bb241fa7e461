"""Fixtures. The whole run lives in a network namespace of its own: nothing here can touch the
host's firewall."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness import backend as backends
from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon

Started = Callable[..., Daemon]


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # it only hands tests out: each worker has a host of its own
    with tempfile.NamedTemporaryFile(prefix="xtables-") as lock:
        host.enter_own_host(Path(lock.name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`linux` and `testguest` marks say which guest a test is about, `emulated` that it is about
    QEMU; others run on all."""
    kind = backends.chosen()
    other = "testguest" if kind.linux else "linux"
    others = [other] if kind.emulated else [other, "emulated"]
    dropped = [item for item in items if any(map(item.get_closest_marker, others))]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def backend() -> Backend:
    return backends.chosen()


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(Path(__file__).parents[2] / "openapi.yaml")


class Keeper:
    """One daemon for all tests that need no other. The firewall has room for one on a host, so it
    stands still while a test has its own."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.daemon: Daemon | None = None

    def running(self) -> Daemon:
        if self.daemon is None:
            self.daemon = Daemon(self.backend)
        return self.daemon if self.daemon.process is not None else self.daemon.start()

    def stop(self) -> None:
        if self.daemon is not None and self.daemon.process is not None:
            self.daemon.stop()


@pytest.fixture(scope="session")
def keeper(backend: Backend) -> Iterator[Keeper]:
    keeper = Keeper(backend)
    yield keeper
    if keeper.daemon is not None:
        keeper.daemon.close()


@pytest.fixture(scope="module")
def shared(keeper: Keeper) -> Daemon:
    """The shared daemon as it is; for files whose tests start no other."""
    return keeper.running()


@pytest.fixture
def daemon(keeper: Keeper, contract: Contract) -> Iterator[Daemon]:
    """The shared daemon, empty before and after: a test that leaves anything behind fails."""
    daemon = keeper.running()
    yield daemon
    client = Client(contract, str(daemon.socket_path))
    for vm in client.list(limit=500):
        client.delete(vm["id"])
    client.close()
    daemon.assert_no_leftovers()
    assert daemon.vmms() == {}
    assert daemon.vm_rules() == []


@pytest.fixture
def client(daemon: Daemon, contract: Contract) -> Iterator[Client]:
    client = Client(contract, str(daemon.socket_path))
    yield client
    client.close()


@pytest.fixture
def start(backend: Backend, keeper: Keeper) -> Iterator[Started]:
    """Makes daemons that belong to one test: start(options, running=True)."""
    made: list[Daemon] = []
    keeper.stop()

    def make(options: Sequence[str] = (), running: bool = True) -> Daemon:
        daemon = Daemon(backend, options)
        made.append(daemon)
        return daemon.start() if running else daemon

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def connect(contract: Contract) -> Iterator[Callable[..., Client]]:
    """Clients of a daemon, or of an address, closed at the end."""
    made: list[Client] = []

    def make(
        to: Daemon | str, headers: dict[str, str] | None = None, trust: Path | None = None
    ) -> Client:
        address = to if isinstance(to, str) else str(to.socket_path)
        made.append(Client(contract, address, headers, trust))
        return made[-1]

    yield make
    for client in made:
        client.close()
