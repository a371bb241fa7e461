"""JSON values into frozen dataclasses: every field that a class names without a default is there
and each has its type, or BadAnswer says which is not. Others are ignored: a newer service may send
them."""

import dataclasses
import types
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import BadAnswer

T = TypeVar("T")


@cache
def _fields(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _optional(kind: Any) -> frozenset[str]:
    fields = dataclasses.fields(kind)
    return frozenset(one.name for one in fields if one.default is not dataclasses.MISSING)


def _union(kinds: tuple[Any, ...], value: object, where: str) -> object:
    """Only of one kind and None, which is all that the contract has."""
    if value is None:
        return None
    return _value(next(kind for kind in kinds if kind is not type(None)), value, where)


def _object(kind: type, value: Mapping[str, object], where: str) -> object:
    told = {}
    optional = _optional(kind)
    for name, of in _fields(kind).items():
        if name not in value:
            if name in optional:
                continue
            raise BadAnswer(f"{where} has no `{name}`")
        told[name] = _value(of, value[name], f"{where}.{name}")
    return kind(**told)


def _scalar(kind: Any, value: object, where: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise BadAnswer(f"{where} is no time") from None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise BadAnswer(f"{where} is {type(value).__name__}, not {kind.__name__}")
    return value


def _value(kind: Any, value: object, where: str) -> object:
    origin = get_origin(kind)
    if kind is object or kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), value, where)
    if origin is tuple and isinstance(value, list):
        (of, _) = get_args(kind)
        return tuple(_value(of, item, f"{where}[{at}]") for at, item in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        (_, of) = get_args(kind)
        told = {name: _value(of, item, f"{where}.{name}") for name, item in value.items()}
        return types.MappingProxyType(told)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return _object(kind, value, where)
    if origin is not None or dataclasses.is_dataclass(kind):
        raise BadAnswer(f"{where} is {type(value).__name__}, not what the contract says")
    return _scalar(kind, value, where)


def parse(kind: type[T], value: object, where: str = "the answer") -> T:
    """A `kind` of what json.loads() made."""
    told = _value(kind, value, where)
    assert isinstance(told, kind)
    return told
