"""Counts the memory that messages take, by the size of its blocks."""

from __future__ import annotations

import tracemalloc

# Bytes of a block that may be of a message. What Python, its debug mode and the loop allocate comes in smaller ones.
LARGE = 4 << 10


def held_in_large_blocks() -> int:
    """Bytes in the large blocks that were allocated since `tracemalloc.start()`, by whomever.

    Where it was allocated does not tell whose it is: in a callback of the loop, all Python frames are asyncio's.
    """
    return sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size >= LARGE)
