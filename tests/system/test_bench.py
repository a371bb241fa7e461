"""The benchmark works: every figure is there, and nothing is left behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import report
from harness import host
from harness.backend import build_dir
from harness.daemon import program
from harness.waiting import wait_until

# It has a daemon of its own, and a host's firewall has room for one.
pytestmark = pytest.mark.usefixtures("start")

ROOT = Path(__file__).parents[2]
# Each launch forks the root half. AddressSanitizer keeps what was freed.
ROOT_KIB_MAX = 1 << 20 if build_dir().name == "asan" else 6500
# It mounts a lock of its own where these tests have mounted theirs, whose file has no name left.
OWN_LOCK = ["unshare", "--mount", "sh", "-c", f'umount {host.LOCK}; exec "$@"', "sh"]


def cgroups_of(pid: int) -> set[str]:
    """What a benchmark of this number makes for its VMs."""
    found: set[str] = set()
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.startswith("cgroup"):
            found |= {str(path) for path in Path(fields.split()[4]).glob(f"motte-{pid}-*")}
    return found


@contextlib.contextmanager
def benchmark(*words: str | Path, path: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Whatever ends it, it leaves nothing. `path`: where it looks for programs first."""
    rules = host.firewall()
    bench = subprocess.Popen(
        [*OWN_LOCK, sys.executable, "-m", "bench.run", *map(str, words)],
        cwd=ROOT,
        env={
            **os.environ,
            "MOTTE_BUILD": str(build_dir()),
            "MOTTE_BACKEND": "firecracker",
            "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'system'}",
        },
        stderr=subprocess.PIPE,
    )
    try:
        yield bench
    finally:
        bench.kill()
        bench.wait()
    wait_until(lambda: cgroups_of(bench.pid) == set(), 60, "cgroups are left")
    assert host.firewall() == rules


def run(folder: Path, *words: str, path: str = "") -> dict[str, Any]:
    """What it wrote."""
    told = folder / "figures.json"
    files = (f"--json={told}", f"--svg={folder / 'timeline.svg'}")
    with benchmark("--quick", *files, *words, path=path) as bench:
        _, said = bench.communicate(timeout=240)
        assert bench.returncode == 0, said[-4000:]
    document: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return document


@pytest.mark.testguest
def test_a_quick_benchmark_tells_every_figure_and_leaves_nothing(tmp_path: Path) -> None:
    record = tmp_path / "performance.md"
    marks = [*report.FIGURES, *report.CROWD]
    record.write_text("\n".join(["before", *marks, "after"]), encoding="utf-8")
    tools = tmp_path / "tools"  # below /tmp, where floors make their jails: not over them
    tools.mkdir()
    for name in ("firecracker", "jailer"):
        shutil.copy(program(name), tools)
    told = run(tmp_path, f"--record={record}", path=str(tools))
    names = {figure["name"].split(",")[0] for figure in told["figures"]}
    assert names == {
        "cold spawn", "exec of `true`", "GET /vms/{id}", "spawns", "restore", "pool claim",
        "first command from the pool",
    }  # fmt: skip
    claims: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    for figure in told["figures"]:
        (claims if figure["name"].startswith("pool claim") else compared).append(figure)
    assert [figure["ours"]["n"] >= 2 for figure in claims] == [True, True]
    assert all(figure["met"] is not None for figure in claims)
    for figure in compared:
        assert figure["ours"]["n"] == figure["floor"]["n"] >= 2
        assert figure["ratio"]["low"] <= figure["ratio"]["value"] <= figure["ratio"]["high"]
    for line in (told["timeline"][0], told["timeline"][3]):
        steps = [bar["step"] for bar in line["bars"]]
        assert steps[:6] == ["admit", "guard", "launch", "configure", "start", "hello"]
    few, more = told["snapshots"]
    assert more["mib"] - few["mib"] == pytest.approx(more["touched_mib"], abs=1)
    picture = (tmp_path / "timeline.svg").read_text(encoding="utf-8")
    assert {one["name"] for one in told["timeline"]} <= set(
        ElementTree.fromstring(picture).itertext()  # noqa: S314 - our own
    )
    assert (tmp_path / "spawn.svg").read_text(encoding="utf-8") == picture
    assert "| restore, paced |" in record.read_text(encoding="utf-8")


@pytest.mark.emulated
@pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="Firecracker is warmed up first")
def test_emulation_is_measured_against_its_floor_and_leaves_nothing(tmp_path: Path) -> None:
    restore, frames, there = run(tmp_path, "--only", "emulated")["figures"]
    assert restore["name"] == "restore, Linux in emulation, paced"
    assert restore["ours"]["n"] == restore["floor"]["n"] == 2
    assert restore["met"] is not None
    assert {frames["name"], there["name"]} == {"first command from the pool, Linux in emulation"}
    assert frames["floor_name"] == "its frames"
    assert 0 < frames["floor"]["min"] < frames["ours"]["min"]  # a part of the very same commands
    assert frames["difference"]["low"] > 0


@pytest.mark.testguest
def test_a_crowd_is_measured_step_by_step_and_leaves_nothing(tmp_path: Path) -> None:
    crowd = run(tmp_path, "--only", "thousand")["crowd"]
    assert [level["live"] for level in crowd["levels"]] == [1, 10]
    assert crowd["execs"]["n"] == 10
    for level in crowd["levels"]:
        assert set(level["steps"]) == {
            "admit", "guard", "launch", "configure", "start", "hello",
        }  # fmt: skip
        assert level["front_kib"] > 1000
        assert 1000 < level["root_kib"] < ROOT_KIB_MAX
    assert crowd["levels"][0]["tables_kib"] < crowd["levels"][1]["tables_kib"]


def below(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it has ended
            found += host.children(one)
    return found


def vmms_below(pid: int) -> int:
    count = 0
    for one in below(pid):
        with contextlib.suppress(OSError):
            count += host.status_of(one)["Name"] == "firecracker"
    return count


def homes_below(pid: int) -> set[Path]:
    """The directories of the daemons that it runs."""
    found: set[Path] = set()
    for one in below(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{one}/cmdline").read_text(encoding="utf-8").split("\0")
            states = [word for word in words if word.startswith("--state-dir=")]
            found |= {Path(word.partition("=")[2]).parent for word in states}
    return found


@pytest.mark.testguest
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_crowd_that_is_stopped_leaves_nothing(number: signal.Signals) -> None:
    with benchmark("--only", "thousand", "--json=/dev/null") as bench:
        wait_until(lambda: vmms_below(bench.pid) >= 8, 120, "no VM lives")
        assert cgroups_of(bench.pid) != set()
        homes = homes_below(bench.pid)
        assert homes
        bench.send_signal(number)
        bench.communicate(timeout=120)
        assert bench.returncode == (128 + number if number == signal.SIGTERM else -number)
    wait_until(lambda: not any(home.exists() for home in homes), 60, "a directory is left")
