"""How much the Python heap grows with each connection."""

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any


async def growth(open_one: Callable[[], Awaitable[None]], count: int) -> dict[str, Any]:
    """Open `count` connections and report the bytes of Python and C heap that each adds."""
    for _ in range(100):
        await open_one()
    gc.collect()
    tracemalloc.start()
    started = time.perf_counter()
    for _ in range(count):
        await open_one()
    seconds = time.perf_counter() - started
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"operations": count, "seconds": seconds, "cpu_seconds": 0.0, "bytes_per_operation": size / count}
