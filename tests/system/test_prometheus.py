"""R05: a real Prometheus scrapes a host under load, and answers what dashboard and alerts ask."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape
from harness.prometheus import Prometheus, dashboard_queries
from harness.waiting import wait_until
from test_tcp import free_port

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower


@pytest.fixture
def watched(start: Callable[..., Daemon], tmp_path: Path) -> Iterator[tuple[Daemon, Prometheus]]:
    target = f"127.0.0.1:{free_port()}"
    daemon = start([f"--metrics-listen=tcp:{target}"])
    prometheus = Prometheus(tmp_path, target, free_port())
    yield daemon, prometheus
    prometheus.close()


def work(client: Client, memory_mib: int) -> None:
    """Creates and commands, good and bad ones."""
    for number in range(3):
        vm_id = f"w{number}"
        client.create(id=vm_id, memory_mib=memory_mib)
        for _ in range(4):
            client.exec(vm_id, ["/bin/echo", "x"])
    slow = {"argv": ["/bin/sleep", "600"], "timeout_ms": 100}
    client.problem(504, "exec_timeout", "POST", "/vms/w0/exec", json=slow)
    client.problem(409, "id_taken", "POST", "/vms", json={"id": "w1"})
    client.delete("w2")


def test_R05_a_real_prometheus_scrapes_and_every_query_of_ours_is_answered(
    watched: tuple[Daemon, Prometheus], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon, prometheus = watched
    client = connect(daemon)
    prometheus.wait('up{job="motte"} == 1')
    work(client, backend.memory_mib)
    prometheus.wait("motte_execs_total == 13 and motte_spawns_total == 4")

    answered: dict[str, list[dict[str, Any]]] = {}
    for title, expression in dashboard_queries():
        answered.setdefault(title, []).extend(prometheus.query(expression))
    for title in ("Hosts that answer", "VMs by state", "Creates", "How long a create takes",
                  "Its steps, p95", "Commands", "How long a command takes", "Requests by route",
                  "Memory of each half", "Open descriptors", "Chains made ahead"):  # fmt: skip
        assert answered[title], title
    running = prometheus.query('motte_vms{state="running"}')
    assert [sample["value"][1] for sample in running] == ["2"]

    _, samples = scrape(client)
    ours = {name.split("{")[0] for name in samples}
    theirs = {n for n in prometheus.ask("/label/__name__/values") if n.startswith("motte_")}
    assert ours == theirs
    (target,) = prometheus.ask("/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    for vm in client.list():
        client.delete(vm["id"])


def test_R05_alerts_are_evaluated_and_tell_that_motte_is_down(
    watched: tuple[Daemon, Prometheus],
) -> None:
    daemon, prometheus = watched
    prometheus.wait('up{job="motte"} == 1')
    wait_until(lambda: all(r["health"] == "ok" for r in prometheus.rules().values()))
    quiet = {name for name, rule in prometheus.rules().items() if rule["state"] == "inactive"}
    assert quiet == set(prometheus.rules()), "nothing is wrong with this host"
    daemon.stop()
    wait_until(lambda: prometheus.rules()["MotteDown"]["state"] == "pending")
