"""R01: openapi.yaml held by a judge that is not ours: schemathesis."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from harness.judge import for_host, judge
from test_tcp import ADMIN, ALICE, bearer, free_port, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

# Random cases of each operation and phase: few, and the same in each run, or as many as are wanted
# (300 make some 10^4 in all), and others in each.
EXAMPLES = int(os.environ.get("MOTTE_CONTRACT_EXAMPLES", "12"))
SEED = () if "MOTTE_CONTRACT_EXAMPLES" in os.environ else ("--seed", "1")
VMS_KEPT, SNAPSHOTS_KEPT = 100, 20


@contextmanager
def janitor(client: Client) -> Iterator[None]:
    """Keeps what a judge makes within bounds, the oldest first, so that room never runs out."""
    over = threading.Event()

    def tidy() -> None:
        while not over.wait(0.1):
            for vm in client.list(limit=500)[:-VMS_KEPT]:
                client.request("DELETE", f"/vms/{vm['id']}")
            listed = client.expect(200, "GET", "/snapshots", params={"limit": 500}).json()
            for snapshot in listed["snapshots"][:-SNAPSHOTS_KEPT]:
                client.request("DELETE", f"/snapshots/{snapshot['id']}")

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def address(start: Callable[..., Daemon], tmp_path: Path) -> str:
    """Roomy where a judge could run out of it, narrow where its VMs would be large."""
    port = free_port()
    start(
        [
            f"--listen=tcp:127.0.0.1:{port}",
            f"--token-file={write_tokens(tmp_path)}",
            "--max-memory-mib=256",
            "--max-vcpus=2",
            "--max-disk-mib=0",
            "--max-vms=2000",
            "--max-snapshots=2000",
            "--memory-overcommit=16",
        ]
    )
    return f"http://127.0.0.1:{port}"


def host_contract(client: Client, contract: Contract) -> dict[str, Any]:
    images = client.expect(200, "GET", "/images").json()["images"]
    capabilities = client.expect(200, "GET", "/capabilities").json()
    return for_host(contract.document, capabilities, [image["name"] for image in images])


@pytest.mark.timeout(7200)
def test_R01_schemathesis_finds_nothing_that_the_contract_does_not_say(
    address: str,
    connect: Callable[..., Client],
    contract: Contract,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """As a caller, who may not use /admin; then /admin as its administrator."""
    alice = connect(address, bearer(ALICE))
    document = host_contract(alice, contract)
    with janitor(connect(address, bearer(ALICE))):
        caller = judge(document, address, ALICE, tmp_path, EXAMPLES, *SEED)
    assert caller.passed, caller.words[-20000:]
    only_admin = ("--include-path-regex", "^/admin", "--phases", "examples,coverage,fuzzing")
    admin = judge(document, address, ADMIN, tmp_path, EXAMPLES, *SEED, *only_admin)
    assert admin.passed, admin.words[-20000:]
    judged = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert caller.operations == judged, "every route was called"
    assert len(judged) >= len(contract.operations()) - 3, "all but what lasts"
    assert any(status == 201 for _, label, status in caller.calls if label == "POST /vms")
    both = caller.calls.total() + admin.calls.total()
    record_property("counted: requests judged by schemathesis", both)
