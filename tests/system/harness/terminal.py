"""A terminal as a person sits before it: a tmux of its own with a shell in it, keys that are
pressed and a screen that is read."""

import os
import re
import subprocess
from pathlib import Path
from types import TracebackType

from .waiting import wait_until

PROMPT = "ready$ "
SHELL = ("bash", "--norc", "--noprofile", "-i")


class Terminal:
    """`home` is a directory of this terminal's own, where the shell begins. `programs` come first
    on its PATH, and `environment` is added to what it knows. Leaving the block ends the shell and
    all that it started."""

    def __init__(
        self,
        home: Path,
        programs: Path,
        environment: dict[str, str],
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._socket = home / "tmux"
        self._environment = {
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "PS1": PROMPT,
            **environment,
        }
        size = ["-x", str(columns), "-y", str(rows)]
        self._tmux("new-session", "-d", "-c", str(home), *size, *SHELL)
        try:
            self.wait_for(re.escape(PROMPT.strip()))
        except BaseException:
            self._tmux("kill-server")  # nobody else would
            raise

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", str(self._socket), *words],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tmux("kill-server")

    def type(self, text: str) -> None:
        """Letter by letter, as it is."""
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """By tmux's names: Enter, C-c, Up."""
        self._tmux("send-keys", *keys)

    def enter(self, line: str) -> None:
        self.type(line)
        self.press("Enter")

    def clear(self) -> None:
        """Nothing of what was there stays, so that what is waited for is new."""
        self.enter("clear")
        wait_until(lambda: self.screen().strip() == PROMPT.strip(), what=self.screen())

    def screen(self, colours: bool = False) -> str:
        """What is seen now, without blanks at ends of lines; with `colours` also their codes."""
        text = self._tmux("capture-pane", "-p", *(["-e"] if colours else []))
        return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """The screen as soon as the pattern (`^` and `$` at each line) is somewhere in it."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.screen()
            return re.search(pattern, seen, re.M) is not None

        try:
            wait_until(there, seconds)
        except TimeoutError:
            raise TimeoutError(f"{pattern!r} does not come to the screen:\n{seen}") from None
        return seen

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))
