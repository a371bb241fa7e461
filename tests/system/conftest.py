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


def pytest_sessionstart() -> None:
    with tempfile.NamedTemporaryFile(prefix="xtables-") as lock:
        host.enter_own_host(Path(lock.name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`linux` and `testguest` marks say which guest a test is about; others run on both."""
    kind = backends.chosen()
    other = "testguest" if kind.linux else "linux"
    dropped = [item for item in items if item.get_closest_marker(other)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not item.get_closest_marker(other)]


@pytest.fixture(scope="session")
def backend() -> Backend:
    return backends.chosen()


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(Path(__file__).parents[2] / "openapi.yaml")


@pytest.fixture(scope="session")
def shared(backend: Backend) -> Iterator[Daemon]:
    """One daemon for all tests that need no other."""
    daemon = Daemon(backend)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def daemon(shared: Daemon, contract: Contract) -> Iterator[Daemon]:
    """The shared daemon, empty before and after: a test that leaves anything behind fails."""
    yield shared
    client = Client(contract, str(shared.socket_path))
    for vm in client.list(limit=500):
        client.delete(vm["id"])
    client.close()
    shared.assert_no_leftovers()
    assert shared.vmms() == {}
    assert host.vm_rules() == []


@pytest.fixture
def client(daemon: Daemon, contract: Contract) -> Iterator[Client]:
    client = Client(contract, str(daemon.socket_path))
    yield client
    client.close()


@pytest.fixture
def start(backend: Backend) -> Iterator[Started]:
    """Makes daemons that belong to one test: start(options, running=True)."""
    made: list[Daemon] = []

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

    def make(to: Daemon | str, headers: dict[str, str] | None = None) -> Client:
        address = to if isinstance(to, str) else str(to.socket_path)
        made.append(Client(contract, address, headers))
        return made[-1]

    yield make
    for client in made:
        client.close()
