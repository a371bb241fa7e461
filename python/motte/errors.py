"""What can go wrong. str() of each is one line for a person; its class is for the program:

MotteError
├── Unreachable         no answer: no service there, or the connection ended
├── BadAnswer           an answer that is not as openapi.yaml says
├── VmReplaced          the id is another VM's now
├── TooMuch             more bytes than `most`, of a file or an archive
├── CommandFailed       run(…, check=True), and the command did not exit with 0
└── ApiError            the service refused or failed, and said why: `code`, `remediation` …
    ├── InvalidRequest  what was asked for is not right
    ├── NotAllowed      no token, or not this one
    ├── NotFound
    │   ├── VmGone      it was there; `certificate` says how it ended
    │   └── CommandLost it was there; nobody knows how it ended
    ├── Conflict        not as things stand now
    ├── Unavailable     not now; a retry can help
    ├── GuestError      the guest did not do its part
    │   └── CommandTimeout  `outputs` holds what the command wrote until then
    └── HostError       the host or the service is not in order
"""

from .models import ExecResult


def one_line(text: str) -> str:
    """Guests' words may be in it: nothing of it moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in
                   " ".join(text.split()))  # fmt: skip


class MotteError(Exception):
    """Whatever this package raises but for wrong arguments (TypeError, ValueError)."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class Unreachable(MotteError):
    """Whether the request had an effect is not known, unless it could not be sent."""


class BadAnswer(MotteError):
    pass


class VmReplaced(MotteError):
    pass


class TooMuch(MotteError):
    pass


class CommandFailed(MotteError):
    def __init__(self, result: ExecResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        result = self.result
        how = (
            f"exit code {result.exit_code}"
            if result.signal is None
            else f"signal {result.signal}" + (" (out of memory)" if result.oom_killed else "")
        )
        last = result.stderr.strip().rpartition("\n")[2]
        return one_line(f"the command ended with {how}" + (f": {last}" if last else ""))
