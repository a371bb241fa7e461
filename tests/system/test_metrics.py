"""R05: what Prometheus reads, judged by Prometheus' own promtool; and that every family moves."""

import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.metrics import scrape, total


def test_R05_promtool_finds_nothing_wrong(client: Client, backend: Backend) -> None:
    assert shutil.which("promtool"), "promtool is missing: apt install prometheus"
    client.create(id="seen", memory_mib=backend.memory_mib)
    client.exec("seen", ["/bin/echo", "x"])
    text, _ = scrape(client)
    judged = subprocess.run(
        ["promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True
    )
    assert (judged.returncode, judged.stdout.strip(), judged.stderr.strip()) == (0, "", "")


def test_R05_every_family_has_help_and_type(client: Client) -> None:
    text, samples = scrape(client)
    declared = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    assert declared == set(re.findall(r"^# HELP (\S+) ", text, re.M))
    for name in samples:
        base = name.split("{")[0]
        assert any(base in (f, f"{f}_bucket", f"{f}_sum", f"{f}_count") for f in declared), name


def test_R05_families_move_by_real_events(client: Client, backend: Backend) -> None:
    _, before = scrape(client)
    client.create(id="moves", memory_mib=backend.memory_mib)
    _, alive = scrape(client)
    client.exec("moves", ["/bin/echo", "x"])
    client.problem(
        504,
        "exec_timeout",
        "POST",
        "/vms/moves/exec",
        json={"argv": ["/bin/sleep", "600"], "timeout_ms": 500},
    )
    client.problem(409, "id_taken", "POST", "/vms", json={"id": "moves"})
    client.delete("moves")
    _, after = scrape(client)

    def moved(family: str, **labels: str) -> float:
        return total(after, family, **labels) - total(before, family, **labels)

    assert total(alive, "motte_vms", state="running") == 1
    assert total(after, "motte_vms", state="running") == 0
    assert moved("motte_spawns_total") == 2
    assert moved("motte_spawn_failures_total", step="admit", code="id_taken") == 1
    assert moved("motte_spawn_duration_seconds_count") >= 1
    for step in ("guard", "launch", "hello"):
        assert moved("motte_spawn_step_duration_seconds_count", step=step) == 1, step
    assert moved("motte_execs_total") == 2
    assert moved("motte_exec_failures_total", code="exec_timeout") == 1
    assert moved("motte_exec_duration_seconds_count") == 2
    assert moved("motte_vm_ends_total", reason="deleted") == 1
    assert moved("motte_http_requests_total", status="201") == 1
    assert moved("motte_http_requests_total", status="409") == 1
    assert moved("motte_http_requests_total", route="/vms/{id}/exec", status="200") == 1
    assert moved("motte_http_requests_total", route="/vms/{id}/exec", status="504") == 1
    assert moved("motte_http_requests_total", route="/vms/{id}", method="DELETE", status="204") == 1
    version = client.expect(200, "GET", "/capabilities").json()["version"]
    assert total(after, "motte_build_info", version=version) == 1
    assert total(after, "motte_process_resident_memory_bytes", half="front") > 1 << 20
    assert total(after, "motte_process_resident_memory_bytes", half="root") > 1 << 19
    assert total(after, "motte_process_open_fds", half="root") > 3


def test_R18_a_missing_guard_shows_in_a_metric(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(start(["--without=firewall"]))
    _, samples = scrape(client)
    assert total(samples, "motte_guards_missing", guard="firewall") == 1
    assert total(samples, "motte_guards_missing", guard="cgroup") == 0
    assert client.create(memory_mib=backend.memory_mib)["without"] == ["firewall"]
    for vm in client.list():
        client.delete(vm["id"])


@pytest.mark.testguest
def test_R05_the_metrics_listener_serves_monitoring_only(
    start: Callable[..., Daemon], connect: Callable[..., Client]
) -> None:
    start(["--metrics-listen=tcp:127.0.0.1:9464"])
    monitor = connect("http://127.0.0.1:9464")
    scrape(monitor)
    assert monitor.request("GET", "/healthz").status_code == 200
    assert monitor.request("GET", "/readyz").status_code == 200
    monitor.problem(404, "route_not_found", "GET", "/vms")
    monitor.problem(404, "route_not_found", "POST", "/vms", json={})
