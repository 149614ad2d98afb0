"""How much the Python heap grows with each connection."""

import gc
import tracemalloc
from collections.abc import Awaitable, Callable

from client import Job


async def growth(job: Job, open_one: Callable[[], Awaitable[None]]) -> None:
    """Open the job's connections and report the bytes of Python and C heap that each adds (tracemalloc)."""
    warm_up = job.connections // 100
    for _ in range(warm_up):
        await open_one()
    gc.collect()
    tracemalloc.start()
    with job.measure() as clock:
        for _ in range(job.connections - warm_up):
            await open_one()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    clock.operations = job.connections - warm_up
    clock.bytes_per_operation = size / clock.operations
