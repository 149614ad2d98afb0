"""For the tests of programs that use this package: answers without a server, retries without waiting.

http.py             MockHTTP, Route: which request gets which reply, and what came
  http_request.py   MockRequest: a request as a server would have got it
  http_reply.py     Reply, Failure: what a server, or the network, does to a request
  http_wire.py      what stands in for aiohttp below `HTTPClient`

async def test_users_are_listed():
    with MockHTTP("https://api.example.com") as mock:
        users = mock.get("/users").reply(503).reply(json=[{"name": "Ada"}])
        assert await names_of_users() == ["Ada"]  # the code under test, with an HTTPClient of its own
        users.assert_called(times=2)
"""

from pepperpy.network.backoff import no_retry_waits
from pepperpy.network.testing.http import MockHTTP, UnexpectedRequestError
from pepperpy.network.testing.http_reply import Failure, Reply
from pepperpy.network.testing.http_request import MockRequest, UploadedFile
from pepperpy.network.testing.http_route import Route

__all__ = [
    "Failure",
    "MockHTTP",
    "MockRequest",
    "Reply",
    "Route",
    "UnexpectedRequestError",
    "UploadedFile",
    "no_retry_waits",
]
