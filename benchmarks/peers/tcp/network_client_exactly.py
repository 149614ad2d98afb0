"""This package without a codec: a record by two awaits, its length and its bytes. `framed()` is compared with it."""

from client import Job
from peers.tcp.network_client import _client
from workloads import HEADER_BYTES, LINE


async def receive_large_record(job: Job) -> None:
    async with _client(job) as client:
        with job.measure() as clock:
            while clock.running():
                size = int.from_bytes(await client.receive_exactly(HEADER_BYTES), "big")
                record = await client.receive_exactly(size)
                clock.operations += len(record)
        assert record == LINE * (job.size // len(LINE))
        client.abort()
