"""The default image's builder: the same list gives the same bytes, wherever and whenever it runs.
Here and not among the system tests, which have no network."""

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checks import tree

BUILDER = tree.ROOT / "deploy" / "image" / "build-image.sh"


def build(folder: Path, packages: str, umask: str, environment: dict[str, str]) -> str:
    """The digest of an image that is built in a folder of its own."""
    folder.mkdir()
    (folder / "list").write_text(packages, encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", f'umask {umask}; exec "$0" list out.sqfs', str(BUILDER)],
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folder)) == ["list", "out.sqfs"], "nothing else stays"
    digest = hashlib.sha256((folder / "out.sqfs").read_bytes()).hexdigest()
    assert digest in done.stdout
    return digest


def test_R21_the_image_is_reproducible(tmp_path: Path) -> None:
    """Two builds at once that differ in all that must not matter. Python's packages would only take
    longer; what the image holds has its tests in the VM."""
    runs = (
        (tmp_path / "a", "tzdata\nmawk\n", "022", {"TZ": "UTC", "LC_ALL": "C"}),
        (
            tmp_path / "a-longer-name",
            "# in another order\nmawk tzdata # twice: tzdata\ntzdata\n",
            "077",
            {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "USER": "x"},
        ),
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda run: build(*run), runs)
    assert first == second
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("packages", "words"), [("", "names no package"), ("a;reboot\n", "package name")]
)
def test_R21_a_wrong_list_leaves_no_image(tmp_path: Path, packages: str, words: str) -> None:
    (tmp_path / "list").write_text(packages, encoding="utf-8")
    done = subprocess.run(
        [str(BUILDER), "list", "out.sqfs"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert words in done.stderr, done.stderr
    assert os.listdir(tmp_path) == ["list"]
