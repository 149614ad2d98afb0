"""The scraper past one machine, on Dask: `python examples/distributed_scraper.py URL ...` (`pip install distributed`).

Without `--scheduler ADDRESS` it starts two worker processes here. Each worker has one `HTTPClient`, made on the event
loop of the worker and closed with it: all tasks of a worker share its connections, rate limits and DNS answers. A task
is a batch of URLs, so that the scheduler's milliseconds per task do not count; batches stream back as they are done.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator

try:
    from distributed import Client, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker
except ImportError:
    print("this example needs Dask: pip install distributed", file=sys.stderr)
    sys.exit(2)

from pepperpy.network import HTTPClient, HTTPConfig

# Here a missing page is a result, not an error.
CONFIG = HTTPConfig(timeout=30.0, retries=2, max_response_size=10 << 20, raise_for_status=False)
Result = tuple[str, int, int, str]  # URL, status or 0, size, error


class HTTPPlugin(WorkerPlugin):
    """One HTTPClient for each worker."""

    name = "pepperpy-http"

    def __init__(self, config: HTTPConfig) -> None:
        self.config = config  # it is sent to the workers; a client cannot be

    async def setup(self, worker: Worker) -> None:
        self.client = await HTTPClient(self.config).__aenter__()

    async def teardown(self, worker: Worker) -> None:
        await self.client.__aexit__(None, None, None)


async def fetch(urls: list[str], concurrency: int) -> list[Result]:
    """A task: Dask runs a coroutine function on the worker's event loop, where the client lives."""
    client = get_worker().plugins[HTTPPlugin.name].client
    results: list[Result] = []
    async for item in client.map(urls, concurrency=concurrency):
        if item.response is None:
            results.append((item.url, 0, 0, str(item.error)))
        else:
            results.append((item.url, item.response.status, len(item.response.content), ""))
    return results


def scrape(
    dask: Client, urls: Iterable[str], *, batch_size: int = 50, concurrency: int = 20, config: HTTPConfig | None = None
) -> Iterator[Result]:
    """Results as they come. A batch begins when another is done, so `urls` may be endless."""
    dask.register_plugin(HTTPPlugin(config or CONFIG))
    source = iter(urls)
    batches = iter(lambda: list(itertools.islice(source, batch_size)), [])

    def submit(count: int) -> list[object]:
        # Not pure: the same URL may answer differently next time.
        return [dask.submit(fetch, batch, concurrency, pure=False) for batch in itertools.islice(batches, count)]

    try:
        # Two batches for each worker: one under way, one ready.
        under_way = as_completed(submit(2 * len(dask.scheduler_info()["workers"])), with_results=True)
        for _, results in under_way:
            yield from results
            for future in submit(1):
                under_way.add(future)
    finally:
        dask.unregister_worker_plugin(HTTPPlugin.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--scheduler", metavar="ADDRESS")
    arguments = parser.parse_args()
    if arguments.scheduler:
        with Client(arguments.scheduler) as dask:
            show(scrape(dask, arguments.urls))
    else:
        with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
            with Client(cluster) as dask:
                show(scrape(dask, arguments.urls))


def show(results: Iterator[Result]) -> None:
    for url, status, size, error in results:
        print(f"{status:3} {size:9,} {url} {error}", flush=True)


if __name__ == "__main__":
    main()
