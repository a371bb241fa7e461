"""What a model is asked and says, and a model that says what it was told to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ..errors import MotteError
from .tools import Tool


class ModelFailed(MotteError):
    """The model gave no answer that can be used."""


@dataclass(frozen=True, slots=True)
class System:
    text: str


@dataclass(frozen=True, slots=True)
class User:
    text: str


@dataclass(frozen=True, slots=True)
class WantedCall:
    """As the model wrote it: `arguments` should be JSON, and may be anything."""

    id: str
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Without calls it is the last."""

    text: str
    calls: tuple[WantedCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of a call."""

    call_id: str
    text: str
    is_error: bool = False


Message: TypeAlias = System | User | Reply | Returned


class Model(Protocol):
    async def complete(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        """ModelFailed where it has no answer, after the retries that make sense."""
        ...


Line: TypeAlias = Reply | Exception | Callable[[Sequence[Message]], Reply]


class ScriptedModel:
    """Says one line after the other; a function is given what was said so far. `heard`: what it was
    last sent."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self.heard: tuple[Message, ...] = ()

    async def complete(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        self.heard = tuple(messages)
        line = next(self._lines, None)
        if line is None:
            raise ModelFailed("the script is at its end")
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, Reply) else line(messages)
