"""What the nested host gets of this tree is enough to collect its tests there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .tree import ROOT


def test_R36_the_nested_host_can_collect_its_tests(tmp_path: Path) -> None:
    script = (ROOT / "tests/nested/run.sh").read_text(encoding="utf-8")
    packed = re.search(r"-C / \"\$\{top#/\}\"/\{([^}]*)\}", script)
    assert packed, "tests/nested/run.sh packs the tree in another way"
    for name in packed[1].split(","):
        if name.startswith("build/"):
            continue
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "tests/pyproject.toml", "-q", "--collect-only",
         "-m", "core", "-p", "no:cacheprovider", "tests/system", "tests/nested"],
        cwd=tmp_path, env={**os.environ, "MOTTE_BUILD": str(ROOT / "build/dev")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
