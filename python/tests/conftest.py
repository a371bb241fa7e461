"""Fixtures: the daemon is that of the system tests, real and in a host of its own."""

from collections.abc import Iterator

import pytest

from harness.backend import Backend
from harness.daemon import Daemon
from motte import Motte, Vm
from system.conftest import (
    backend,
    contract,
    daemon,
    keeper,
    pytest_collection_modifyitems,
    pytest_sessionstart,
    shared,
    start,
)

__all__ = [
    "backend", "contract", "daemon", "keeper", "pytest_collection_modifyitems",
    "pytest_sessionstart", "shared", "start",
]  # fmt: skip


@pytest.fixture(scope="module")
def motte(shared: Daemon) -> Iterator[Motte]:
    with Motte(str(shared.socket_path)) as motte:
        yield motte


@pytest.fixture(scope="module")
def vm(motte: Motte, backend: Backend) -> Iterator[Vm]:
    """One for the whole file: commands do not disturb each other."""
    with motte.vm(memory_mib=backend.memory_mib) as vm:
        yield vm
