"""Writes motte/sync, the client for programs that wait, from motte/aio, its source.

Beyond the words below: a line that ends with `# async only` goes, one that begins with
`# sync only: ` comes in without it. Run it where tests/requirements.txt is installed.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "motte"
TESTS = PACKAGE.parents[1] / "tests"  # ruff looks for our packages from there
WORDS = [
    (r", for asyncio", ""),
    (r"The client for asyncio", "The client for programs that wait"),
    (r"sync/(\w+\.py) is made from this by make_sync", r"Made from aio/\1 by make_sync"),
    (r"[^\n]*# async only\n", ""),
    (r"# sync only: ", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bimport asyncio\b", "import time\nimport weakref"),
    (r"\bawait asyncio\.", "time."),
    (r"\bawait ", ""),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|read|iter_raw|closing)\b", r"\1"),
]


def made(path: Path) -> str:
    """Of a file of motte/aio its like in motte/sync."""
    text = path.read_text(encoding="utf-8")
    for pattern, words in WORDS:
        text = re.sub(pattern, words, text)
    place = str(PACKAGE / "sync" / path.name)
    for tidy in (["check", "--fix", "--unsafe-fixes", "--exit-zero"], ["format"]):
        argv = [
            "ruff",
            *tidy,
            "--quiet",
            "--config",
            "pyproject.toml",
            "--stdin-filename",
            place,
            "-",
        ]
        done = subprocess.run(
            argv, cwd=TESTS, input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text


def all_made() -> dict[str, str]:
    """By name."""
    return {path.name: made(path) for path in (PACKAGE / "aio").glob("*.py")}


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(__doc__)
    for name, text in all_made().items():
        (PACKAGE / "sync" / name).write_text(text, encoding="utf-8")
