"""`motte doctor` and `motte top`: how it stands, seen from the client."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from harness.backend import Backend
from harness.daemon import Daemon
from harness.motte import Motte
from test_tcp import ADMIN, ALICE, free_port, write_tokens


def told(
    motte: Motte, address: str | None = None, token: str = ""
) -> tuple[int, dict[str, dict[str, str]]]:
    """The status of `doctor`, and its lines by what they are about."""
    motte.environment |= {"MOTTE_TOKEN": token} | ({"MOTTE_ADDRESS": address} if address else {})
    done = motte("doctor", "--json")
    assert done.stderr == b""
    return done.returncode, {line["name"]: line for line in json.loads(done.stdout)["lines"]}


def test_R01_doctor_says_what_one_gets_here(daemon: Daemon, backend: Backend) -> None:
    motte = Motte(daemon)
    status, lines = told(motte)
    states = {name: line["state"] for name, line in lines.items()}
    isolation = "warn" if backend.emulated else "ok"
    assert status == 0
    assert states == dict.fromkeys(lines, "ok") | {"isolation": isolation}
    assert lines["caller"]["detail"].startswith("administrator of")
    for line in lines.values():
        assert (line["remedy"] == "") == (line["state"] == "ok"), line
    shown = motte("doctor").stdout.decode()
    assert {n: s for s, n in re.findall(r"^(ok|warn|fail) +(\w+) ", shown, re.M)} == states
    assert all(line["detail"] in shown and line["remedy"] in shown for line in lines.values())


def test_R01_doctor_says_that_the_service_is_not_there(daemon: Daemon, tmp_path: Path) -> None:
    status, lines = told(Motte(daemon), str(tmp_path / "none"))
    assert (status, list(lines), lines["service"]["state"]) == (3, ["service"], "fail")
    assert "MOTTE_ADDRESS" in lines["service"]["remedy"]
    assert "motted doctor" in lines["service"]["remedy"]


def test_R11_doctor_says_who_one_is_and_what_is_wrong_with_a_token(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    port = free_port()
    options = [f"--token-file={write_tokens(tmp_path)}", "--without=seccomp"]
    motte = Motte(start([f"--listen=tcp:127.0.0.1:{port}", *options]))
    address = f"http://127.0.0.1:{port}"
    for token, who in ((ALICE, "no administrator of tenant alice"), (ADMIN, "administrator of")):
        status, lines = told(motte, address, token)
        assert status == 0
        assert lines["caller"]["detail"].startswith(who)
        assert lines["guards"]["state"] == "warn"
        assert "seccomp" in lines["guards"]["detail"]
    status, lines = told(motte, address, ALICE[::-1])
    assert (status, lines["service"]["state"], lines["caller"]["state"]) == (1, "ok", "fail")
    assert ALICE[::-1] not in str(lines), "a token is told to nobody"


def test_R01_top_says_what_a_vm_takes(daemon: Daemon, backend: Backend) -> None:
    motte = Motte(daemon)
    made = motte("create", "--id=busy", f"--mem={backend.memory_mib}", "--label=l=1")
    assert made.returncode == 0, made.stderr
    done = motte("top", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (row,) = json.loads(done.stdout)["vms"]
    assert (row["id"], row["state"], row["memory_mib"]) == ("busy", "running", backend.memory_mib)
    assert 0 <= row["cpu_percent"] < 100 * (os.cpu_count() or 1)
    head, line = motte("top").stdout.decode().splitlines()
    assert head.split()[:3] == ["ID", "STATE", "CPU%"]
    assert line.split()[:2] == ["busy", "running"]
    assert b"busy" not in motte("top", "--label=l=2").stdout
    assert motte("rm", "busy").returncode == 0
