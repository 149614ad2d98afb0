"""Fetch many pages, each as it comes: `python examples/scraper.py URL ...`; `-` reads the URLs from standard input.

Without arguments it fetches the pages of a small server that it starts itself.

`HTTPConfig` has the retries, the time limits and the limits of connections and sizes. A page that fails is a line of
the output like any other, and does not stop the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import html
import re
import sys
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from pepperpy.network import HTTPClient, HTTPConfig, NetworkClient, serve

# Here a missing page is a result, not an error.
CONFIG = HTTPConfig(timeout=30.0, retries=2, max_response_size=10 << 20, raise_for_status=False)


class Page(NamedTuple):
    url: str
    status: int  # 0: no answer
    size: int
    title: str  # or what went wrong


async def scrape(urls: Iterable[str], concurrency: int = 20, config: HTTPConfig | None = None) -> AsyncIterator[Page]:
    """Pages in the order in which they come. `urls` is read as slots become free, so it may be endless."""
    async with HTTPClient(config or CONFIG) as client:
        # aclosing: if the loop is left early, the rest is cancelled at once.
        async with contextlib.aclosing(client.map(urls, concurrency=concurrency)) as results:
            async for result in results:
                if result.response is None:
                    yield Page(str(result.url), 0, 0, str(result.error))
                else:
                    yield Page(
                        str(result.url), result.response.status, len(result.response.content),
                        title_of(result.response.text),
                    )  # fmt: skip


def title_of(text: str) -> str:
    found = re.search(r"<title[^>]*>(.*?)</title>", text[:100_000], re.IGNORECASE | re.DOTALL)
    return " ".join(html.unescape(found[1]).split()) if found else ""


async def site(client: NetworkClient) -> None:
    """A server to try it with: the title of each page is its path."""
    while head := await client.receive_until(b"\r\n\r\n", timeout=None):
        page = b"<title>%s</title>" % head.split()[1]
        await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))


async def demo() -> None:
    async with serve(site, stop_timeout=0) as server:
        await main(f"http://127.0.0.1:{server.port}/page/{number}" for number in range(10))


async def main(urls: Iterable[str]) -> None:
    async for page in scrape(urls):
        print(f"{page.status:3} {page.size:9,} {page.url} {page.title}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="*", metavar="URL")
    urls = parser.parse_args().urls
    if urls == ["-"]:
        urls = (line.strip() for line in sys.stdin if line.strip())
    asyncio.run(main(urls) if urls else demo())
