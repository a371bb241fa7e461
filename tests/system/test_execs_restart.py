"""Commands end with the service: what is said of them afterwards."""

import time
from collections.abc import Callable

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.events import Events


def test_R02_after_a_restart_it_is_lost_and_says_so(
    daemon: Daemon, connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(daemon)
    client.create(id="stays", memory_mib=backend.memory_mib)
    path = str(
        client.expect(
            202,
            "POST",
            "/vms/stays/execs",
            json={"argv": ["/bin/sleep", "86400"], "timeout_ms": 600000},
            headers={"Prefer": "respond-async"},
        ).headers["location"]
    )
    with Events(daemon.socket_path, f"{path}/events") as events:
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 8, "a command that nobody waits for delays no stop"
        seen = list(events)
    assert all(event.name == "end" for event in seen)
    daemon.start()
    client = connect(daemon)
    client.problem(410, "exec_lost", "GET", path)
    client.problem(410, "exec_lost", "POST", f"{path}/stdin", json={"offset": 0})
    client.expect(204, "DELETE", path)
    assert client.expect(200, "GET", "/vms/stays/execs").json() == {"execs": []}
    assert client.exec("stays", ["/bin/echo", "alive"], timeout_ms=30000).out == "alive\n"
