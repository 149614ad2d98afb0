"""The https://api.example.com of the documents; `python documented.py PROGRAM` runs one against it."""

from __future__ import annotations

import contextlib
import hashlib
import runpy
import sys
from collections.abc import Iterator

from pepperpy.network.testing import MockHTTP

EMPTY = hashlib.sha256().hexdigest()


@contextlib.contextmanager
def documented_server() -> Iterator[MockHTTP]:
    """The https://api.example.com of the HTTP snippets; what is expected of it is asked for only where it is used."""
    with MockHTTP("https://api.example.com/v1", assert_all_called=False) as mock:
        mock.get("/search", params={"q": "test"}).reply(text="found")
        mock.get("/users/123").reply(json={"name": "john"})
        mock.post("/users", json={"name": "john"}).reply(201)
        mock.get("/events").reply(text="data: one\n\ndata: two\n\n", headers={"Content-Type": "text/event-stream"})
        mock.get("/files/large.bin").reply(content=b"")
        for number in (1, 2, 3):
            mock.get(f"/{number}").reply(text="page")
        mock.post("/form").reply(text="thanks")
        mock.post("/files").reply(201)
        mock.put("/files/1").reply(204)
        mock.get("/rows").reply(text='{"n": 1}\n{"n": 2}\n')
        mock.get("/missing").reply(404)
        mock.get("/old").reply(302, headers={"Location": "/v1/users/123"})
        yield mock


if __name__ == "__main__":
    with documented_server():
        runpy.run_path(sys.argv[1], run_name="__main__")
