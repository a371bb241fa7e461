"""A VM that is about to be made, by asyncio's customs: `await` it, or `async with` it."""

from collections.abc import Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

V = TypeVar("V", bound=AbstractAsyncContextManager[Any])


class Coming(Generic[V]):
    def __init__(self, made: Coroutine[Any, Any, V]) -> None:
        self._made = made

    def __await__(self) -> Generator[Any, Any, V]:
        return self._made.__await__()

    async def __aenter__(self) -> V:
        self._here = await self._made
        return self._here

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._here.__aexit__(kind, why, at)
