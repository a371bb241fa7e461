"""Waiting for what the daemon does by itself and tells nobody."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], bool], seconds: float = 30, what: str = "still not so") -> None:
    """Asks until it is so."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)
