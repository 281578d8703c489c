"""A few calls at once, their results in order: what waits for a store's answers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(call: Callable[[In], Out], items: Iterable[In], at_once: int = 16) -> Iterator[Out]:
    """Each item's result, as many calls in flight as said; however many items there are, few results wait."""
    with ThreadPoolExecutor(at_once) as pool:
        ahead: deque[Future[Out]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(call, item))
                if len(ahead) > at_once:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
