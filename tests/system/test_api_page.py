"""What docs/api.md begins with works as it stands there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.client import Client
from harness.daemon import Daemon

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.linux
def test_R01_the_lines_that_the_page_begins_with_work(daemon: Daemon, client: Client) -> None:
    found = re.match(r"# .*\n```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert found, "docs/api.md does not begin with them"
    assert found[1].count("\n") == 10
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", found[1]],
        env={**os.environ, "MOTTE_SOCKET": str(daemon.socket_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"stdout":"42\\n"' in done.stdout
    assert "event: end" in done.stdout
    (fork,) = client.list()
    assert fork["id"] != "demo"
