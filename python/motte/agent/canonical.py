"""One text for one JSON value, and the digest of a tool call.

Equal texts mean equal values and the other way round, types included: 1, 1.0 and true differ, the
order of an object's members does not matter. What has no such text is refused, never bent. It is
printable ASCII: on a terminal nothing in it hides, and it reads in the order it is in.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

TEXT_MAX = 1 << 20  # bytes
DEPTH_MAX = 32
DIGEST_OF = "motte tool call 1"


class NotJson(ValueError):
    """What it is about is not plain JSON, or too much of it."""


def _check(value: object, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise NotJson(f"more than {DEPTH_MAX} levels deep")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if type(name) is not str:
                raise NotJson(f"a member's name is {type(name).__name__}, not a string")
            name.encode()
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif type(value) is str:
        value.encode()  # not so half a surrogate pair
    elif value is not None and type(value) not in (bool, int, float):
        raise NotJson(f"{type(value).__name__} is no JSON")


def canonical(value: object) -> str:
    """Members sorted, no white space, and escaped what is not printable ASCII."""
    try:
        _check(value, 1)
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict
        )  # fmt: skip
    except NotJson:
        raise
    except ValueError as why:  # a NaN, an infinity, half a surrogate pair, an endless integer
        raise NotJson(str(why)) from None
    text = text.replace("\x7f", "\\u007f")  # which json takes for printable
    if len(text) > TEXT_MAX:
        raise NotJson(f"{len(text)} bytes; {TEXT_MAX} are the most")
    return text


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise NotJson("a member is there twice")
    return made


def _constant(word: str) -> Any:
    raise NotJson(f"{word} is no JSON")


def read_object(text: str) -> dict[str, Json]:
    """Strictly: no member twice, no NaN, of bounded size and depth."""
    if len(text) > TEXT_MAX:
        raise NotJson(f"{len(text)} characters; {TEXT_MAX} are the most")
    try:
        value: Json = json.loads(text, object_pairs_hook=_members, parse_constant=_constant)
    except RecursionError:
        raise NotJson(f"more than {DEPTH_MAX} levels deep") from None
    except NotJson:
        raise
    except ValueError as why:
        raise NotJson(str(why)) from None
    if not isinstance(value, dict):
        raise NotJson("not an object")
    return value


def digest(tool: str, arguments: str) -> str:
    """SHA-256, in hexadecimal, of a tool's name and its canonical arguments."""
    text = canonical([DIGEST_OF, tool]) + arguments
    return hashlib.sha256(text.encode()).hexdigest()
