"""The command-line client at a terminal, as a person sees it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.backend import Backend
from harness.daemon import Daemon
from harness.terminal import PROMPT, Terminal

COLOUR = "\x1b["
GREEN = "\x1b[32m"


@pytest.fixture
def terminal(daemon: Daemon, tmp_path: Path) -> Iterator[Terminal]:
    environment = {"MOTTE_ADDRESS": str(daemon.socket_path)}
    with Terminal(tmp_path, daemon.bin, environment) as terminal:
        yield terminal


def settings(terminal: Terminal, home: Path) -> str:
    """Of the terminal, as stty tells them."""
    terminal.clear()
    terminal.enter("stty -g >settings; echo told")
    terminal.wait_for("^told$")
    return (home / "settings").read_text()


def status(terminal: Terminal) -> int:
    """Of the last command, when it has ended."""
    terminal.wait_for(rf"^{re.escape(PROMPT.strip())}\Z")
    terminal.enter("echo status $?")
    return int(re.findall(r"^status (\d+)$", terminal.wait_for(r"^status \d+$"), re.M)[-1])


@pytest.mark.linux
def test_R27_a_vm_begins_before_ones_eyes_and_a_shell_in_it_is_like_ones_own(
    terminal: Terminal, backend: Backend, tmp_path: Path
) -> None:
    before = settings(terminal, tmp_path)
    terminal.clear()
    terminal.enter(f"motte run --mem={backend.memory_mib} true 2>quiet &")
    terminal.enter(f"motte create --id=seen --mem={backend.memory_mib}")
    terminal.wait_for(r"^starting a VM  \d+\.\d s$")
    seen = terminal.wait_for(r"^seen$", backend.boot_timeout_ms / 1000)
    assert "starting" not in seen, "the line goes when it is of no use any more"

    terminal.clear()
    terminal.enter("motte exec -it seen -- /bin/bash --norc")
    terminal.wait_for(r"^bash-[\d.]+# *$")
    terminal.type("echo $((6*7))")
    terminal.wait_for(r"# echo \$\(\(6\*7\)\)$")  # each key is seen once, and nothing is done yet
    terminal.press("Enter")
    terminal.wait_for(r"^42$")
    terminal.enter("stty size")
    terminal.wait_for(r"^24 80$")
    terminal.resize(100, 30)
    terminal.enter("until stty size | grep 30; do sleep 0.1; done")
    terminal.wait_for(r"^30 100$")
    terminal.enter("sh -c 'echo begun; sleep 86400'")
    terminal.wait_for(r"^begun$")
    terminal.press("C-c")
    terminal.enter("echo interrupted $?")
    terminal.wait_for(r"^interrupted 130$")
    terminal.enter("exit 7")
    assert status(terminal) == 7
    assert settings(terminal, tmp_path) == before

    terminal.clear()
    terminal.enter("wait %1 2>/dev/null; cat quiet; motte rm seen; echo all quiet")
    terminal.wait_for("^all quiet$", backend.boot_timeout_ms / 1000)
    assert (tmp_path / "quiet").read_text() == "", "where nobody looks nothing is shown"


def test_R27_colours_are_for_terminals(terminal: Terminal, backend: Backend) -> None:
    terminal.enter(f"motte create --id=seen --mem={backend.memory_mib}")
    terminal.wait_for(r"^seen$", backend.boot_timeout_ms / 1000)
    terminal.clear()
    terminal.enter("motte ps")
    terminal.wait_for(r"^seen +running ")
    assert f"{GREEN}running" in terminal.screen(colours=True)
    for command in ("motte ps | cat", "NO_COLOR=1 motte ps"):
        terminal.clear()
        terminal.enter(command)
        terminal.wait_for(r"^seen +running ")
        assert COLOUR not in terminal.screen(colours=True), command
    terminal.enter("motte rm seen")
    assert status(terminal) == 0


def test_R01_top_is_drawn_in_place_until_q(
    terminal: Terminal, backend: Backend, tmp_path: Path
) -> None:
    before = settings(terminal, tmp_path)
    terminal.enter(f"motte create --id=busy --mem={backend.memory_mib}")
    terminal.wait_for(r"^busy$", backend.boot_timeout_ms / 1000)
    terminal.clear()
    terminal.enter("motte top")
    seen = terminal.wait_for(r"^busy +running +\d+\.\d ")  # the second time, as before it is "-"
    assert seen.startswith("ID"), "the table begins at the top, and is there once"
    assert seen.count("busy") == 1
    terminal.resize(60, 2)
    terminal.wait_for(r"\A(?!.*busy)ID[^\n]*\nq ends it\Z")
    terminal.resize(80, 24)
    terminal.wait_for(r"^busy +running ")
    terminal.type("q")
    assert status(terminal) == 0
    assert "CPU%" not in terminal.screen(), "what was there before is there again"
    assert settings(terminal, tmp_path) == before
    terminal.enter("motte rm busy; echo gone")
    terminal.wait_for("^gone$")
