"""R01: codes of the catalogue that no other system test is about."""

from collections.abc import Callable

import pytest

from harness.client import Client
from harness.daemon import Daemon


def test_R01_a_target_that_is_too_long(client: Client) -> None:
    client.problem(414, "uri_too_long", "GET", "/vms", params={"label": "x" * 2100})


def test_R01_a_method_that_a_route_does_not_have(client: Client) -> None:
    client.problem(405, "method_not_allowed", "PUT", "/vms")


@pytest.mark.testguest
@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--firecracker=/nowhere/firecracker", "no_hypervisor"),
        ("--cgroup=a b", "bad_configuration"),
    ],
)
def test_R01_a_start_that_is_refused_names_its_code(
    start: Callable[..., Daemon], option: str, code: str
) -> None:
    """There is nobody to answer then: the log has it."""
    daemon = start([option], running=False)
    assert daemon.spawn().wait(timeout=30) == 1
    assert f"[{code}]" in daemon.log
