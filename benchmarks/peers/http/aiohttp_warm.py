"""aiohttp again, in a process that has freed a large block before, so that glibc no longer maps its receive buffers.

What this package does for its users as well (http/wire.py): the comparison without that advantage, for ratios.py.
"""

from client import Job
from peers.http import aiohttp_session

LOOPS = ()  # for none but ratios.py


async def get(job: Job) -> None:
    bytes(1 << 20)
    await aiohttp_session.get(job)
