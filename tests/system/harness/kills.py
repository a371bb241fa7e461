"""How a service is killed: either half, or both."""

import os
import signal

from .daemon import Daemon


def kill_root(daemon: Daemon) -> None:
    os.kill(daemon.pid, signal.SIGKILL)


def kill_front(daemon: Daemon) -> None:
    os.kill(daemon.front_pid, signal.SIGKILL)


def kill_both(daemon: Daemon) -> None:
    front = daemon.front_pid
    os.kill(daemon.pid, signal.SIGKILL)
    os.kill(front, signal.SIGKILL)
