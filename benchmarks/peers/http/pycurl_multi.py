"""pycurl: handles that are used again and again in one CurlMulti, without asyncio (its examples/retriever-multi.py).

The connections kept are as many as the load's, where libcurl by itself keeps four for each transfer under way. CAINFO
is the documented place for a certificate authority. ACCEPT_ENCODING is how libcurl is told to unpack. BUFFERSIZE and
UPLOAD_BUFFERSIZE are what its manual pages have against the small buffers of the defaults, for large bodies. It has no
JSON: the standard library's is used.
"""

import itertools
import json
from collections.abc import Callable
from io import BytesIO
from time import perf_counter
from typing import Any

import pycurl
from client import Job
from http_load import JSON_SENT, body_of, checks, counter, urls

LOOPS = ("none",)


class _Request:
    """A handle, and what it has received."""

    def __init__(self, job: Job) -> None:
        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.NOSIGNAL, 1)
        self.curl.setopt(pycurl.FAILONERROR, 1)
        if job.ca_file is not None:
            self.curl.setopt(pycurl.CAINFO, job.ca_file)

    def begin(self, url: str) -> None:
        self.begun = perf_counter()
        self.body = BytesIO()
        self.curl.setopt(pycurl.URL, url)
        self.curl.setopt(pycurl.WRITEDATA, self.body)

    def result(self) -> Any:
        return self.body.getvalue().decode()


class _Get(_Request):
    pass


class _GetBytes(_Request):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.curl.setopt(pycurl.ACCEPT_ENCODING, "gzip")
        self.curl.setopt(pycurl.BUFFERSIZE, 512 << 10)

    def result(self) -> Any:
        return self.body.getvalue()


class _PostJSON(_Request):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json"])

    def begin(self, url: str) -> None:
        super().begin(url)
        self.curl.setopt(pycurl.POSTFIELDS, json.dumps(JSON_SENT))

    def result(self) -> Any:
        return json.loads(self.body.getvalue())


class _PostBytes(_Request):
    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 2 << 20)  # its largest
        self.curl.setopt(pycurl.POSTFIELDS, body_of(job.workload.path, job.size))


def get(job: Job) -> None:
    _run(job, _Get)


def get_bytes(job: Job) -> None:
    _run(job, _GetBytes)


def post_json(job: Job) -> None:
    _run(job, _PostJSON)


def post_bytes(job: Job) -> None:
    _run(job, _PostBytes)


def _run(job: Job, kind: type[_Request]) -> None:
    """What `http_load.keep_in_flight` does, without a loop."""
    all_right, right = checks(job)
    cycle = itertools.cycle(urls(job))
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, max(job.connections, job.workload.hosts))
    requests = {request.curl: request for request in (kind(job) for _ in range(job.connections))}

    def transfer(answered: Callable[[_Request], bool]) -> None:
        """Send with every handle, and with each again as often as `answered` says so."""
        free = list(requests.values())
        under_way = 0
        while free or under_way:
            for request in free:
                request.begin(next(cycle))
                multi.add_handle(request.curl)
            under_way += len(free)
            free.clear()
            multi.perform()
            left = 1
            while left:
                left, good, bad = multi.info_read()
                if bad:
                    raise RuntimeError(bad)
                for curl in good:
                    multi.remove_handle(curl)
                    under_way -= 1
                    if answered(requests[curl]):
                        free.append(requests[curl])
            if under_way and not free:
                multi.select(1.0)

    def first(request: _Request) -> bool:
        if not all_right(request.result()):
            raise RuntimeError("wrong answer")
        return False

    def another(request: _Request) -> bool:
        if not right(request.result()):
            raise RuntimeError("wrong answer")
        now = perf_counter()
        done(now - request.begun)
        return now < clock.end

    for _ in range(max(1, job.workload.hosts // job.connections)):
        transfer(first)
    with job.measure() as clock:
        done = counter(job, clock)
        transfer(another)
    multi.close()
