"""The package as others install it."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1]


def test_R35_a_wheel_has_the_whole_package_and_needs_httpx_alone(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--quiet", "--wheel-dir", str(tmp_path), str(FOLDER)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("motte-*.whl")
    with zipfile.ZipFile(wheel) as inside:
        names = {name for name in inside.namelist() if name.startswith("motte/")}
        metadata = inside.read(next(n for n in inside.namelist() if n.endswith("/METADATA")))
    there = {
        str(path.relative_to(FOLDER))
        for path in (FOLDER / "motte").rglob("*")
        if path.suffix in (".py", ".typed")
    }
    assert names == there
    assert "motte/py.typed" in there
    needs = [line for line in metadata.decode().splitlines() if line.startswith("Requires-Dist:")]
    assert len([line for line in needs if "extra ==" not in line]) == 1


def test_R35_what_it_needs_is_pinned_as_the_tests_have_it() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = (FOLDER.parent / "tests" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert set(project["project"]["dependencies"]) <= set(pinned)
    for extra in project["project"]["optional-dependencies"].values():
        assert set(extra) <= set(pinned)
    assert set(project["build-system"]["requires"]) <= set(pinned)
