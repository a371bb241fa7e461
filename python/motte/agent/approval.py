"""Who is asked whether a call may run, and what keeps the answer.

An approval is for one digest, which is one tool with just these arguments; it is good for one run,
until the time that the question named. Whatever else happens is a denial.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import one_line
from .policy import Decision, Policy
from .tools import Refused, ToolCall

ASK_S = 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, and the digest that it is about. `why` is for the model."""

    digest: str
    granted: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """`arguments`: JSON, canonical; the words of untrusted code. `expires_s`: from now on."""

    digest: str
    tool: str
    arguments: str
    expires_s: float

    def grant(self) -> Verdict:
        return Verdict(self.digest, True)

    def deny(self, why: str = "") -> Verdict:
        return Verdict(self.digest, False, why)


# Somebody, or something that has somebody's word. It may take as long as it likes: after
# `expires_s` the answer is no.
Approver: TypeAlias = Callable[[Question], Awaitable[Verdict]]


async def nobody(question: Question) -> Verdict:
    """For tasks that nobody watches: what the policy does not allow does not run."""
    return question.deny("nobody is there to be asked")


class Gate:
    """One task's policy and approvals. ask() gets them, admit() uses them up."""

    def __init__(
        self,
        policy: Policy,
        approver: Approver = nobody,
        *,
        ask_s: float = ASK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask_s`: how long a question, and the approval that answers it, hold."""
        self._policy = policy
        self._approver = approver
        self._ask_s = ask_s
        self._clock = clock
        self._granted: dict[str, float] = {}

    async def ask(self, call: ToolCall) -> None:
        """Returns where the call may run now; Refused says why it may not."""
        match self._policy.decide(call):
            case Decision.ALLOW:
                return
            case Decision.DENY:
                raise Refused("the policy denies this call")
        ends = self._clock() + self._ask_s
        verdict = await self._answer(Question(call.digest, call.tool, call.text, self._ask_s))
        if verdict is None or self._clock() >= ends:
            raise Refused("nobody approved this call in time, so it is denied")
        if not isinstance(verdict, Verdict):
            raise Refused("the answer is no verdict, so it is denied")
        if verdict.digest != call.digest:
            raise Refused("the approval is for another call, so this one is denied")
        if verdict.granted is not True:
            raise Refused(f"denied: {verdict.why}" if verdict.why else "denied")
        self._granted[call.digest] = ends

    async def _answer(self, question: Question) -> Verdict | None:
        """None where none came in time. An approver that does not let itself be stopped is left
        behind, and what it says then is not heard."""
        asked: asyncio.Future[Verdict] | None = None
        try:
            asked = asyncio.ensure_future(self._approver(question))
            await asyncio.wait({asked}, timeout=self._ask_s)
            if not asked.done() or asked.cancelled():
                return None
            return asked.result()
        except Exception as why:
            raise Refused(f"asking failed, so it is denied: {one_line(str(why))}") from why
        finally:
            if asked is not None:
                asked.cancel()

    def admit(self, call: ToolCall) -> None:
        """Once for each approval; Refused if this call has none."""
        decision = self._policy.decide(call)
        if decision is Decision.ALLOW:
            return
        ends = self._granted.pop(call.digest, None)
        if decision is Decision.DENY:
            raise Refused("the policy denies this call")
        if ends is None:
            raise Refused("this tool with these arguments has no approval")
        if self._clock() >= ends:
            raise Refused("the approval has expired")
