"""The project's own files, and the names that its rules speak of."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "base", "json", "image", "store", "netfilter", "vsock", "priv", "vmm", "api", "server",
    "motted", "admin", "cli", "guest",
)  # fmt: skip
TESTS = ("tests/", "python/tests/")
SKIPPED = {"build", ".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def files(*endings: str) -> list[Path]:
    """Every file of ours with one of these endings, built ones excluded."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        found += [Path(folder) / name for name in names if name.endswith(endings)]
    return sorted(found)


def scripts() -> list[Path]:
    """Shell scripts, by their first line."""
    found = files(".sh")
    ci = ROOT / ".ci" / "run"
    return [*found, ci] if ci.exists() else found


def sources() -> list[Path]:
    return files(".c", ".h")


def programs_folder() -> Path:
    """The build that the checks look into."""
    return Path(os.environ.get("MOTTE_BUILD", ROOT / "build" / "dev")).resolve()


def run(*argv: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in argv], cwd=cwd, check=False, capture_output=True, text=True
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
