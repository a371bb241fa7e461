"""What README.md shows works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.daemon import Daemon

FOLDER = Path(__file__).parents[1]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.mark.linux
@pytest.mark.parametrize("block", BLOCKS, ids=["first", *range(2, len(BLOCKS) + 1)])
def test_R39_what_readme_shows_works(daemon: Daemon, block: str, tmp_path: Path) -> None:
    """A line's comment is what it prints."""
    env = {
        **os.environ,
        "PYTHONPATH": str(FOLDER),
        "MOTTE_ADDRESS": str(daemon.socket_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"  # prints (.*)$", block, re.M)
