"""aiohttp again, in a process that has freed a large block before, so that glibc no longer maps its receive buffers.

What this package does for its users as well (http/wire.py): the comparison without that advantage.
"""

from peers.aiohttp_session import http_get_1 as _get_1
from peers.aiohttp_session import http_get_32 as _get_32


async def http_get_1(port: int) -> dict[str, object]:
    bytes(1 << 20)
    return await _get_1(port)


async def http_get_32(port: int) -> dict[str, object]:
    bytes(1 << 20)
    return await _get_32(port)
