r"""For the tests of programs that use this package: answers without a server, faults on demand, no waits for retries.

http.py             MockHTTP: which request gets which reply, and what came
  http_route.py     Route: the replies of one route
  http_match.py     whether a request fits a route, and why not
  http_request.py   MockRequest: a request as a server would have got it
  http_reply.py     Reply, Failure: what a server, or the network, does to a request
  http_wire.py      the transport of a client in such a block; http_response.py: its answers
tcp_peer.py         scripted_peer: a real server that follows a script, and fails the test whose client does not
tcp_proxy.py        FaultProxy, Faults: a network that fails as told, between any client and any server
tcp_reset.py        how both close with a RST that overtakes nothing
tcp_memory.py       memory_pair: two connected `NetworkClient`s without a network
tcp_connect.py      connect_failures: the next attempts to connect fail

async def test_users_are_listed():
    with MockHTTP("https://api.example.com") as mock:
        users = mock.get("/users").reply(503).reply(json=[{"name": "Ada"}])
        assert await names_of_users() == ["Ada"]  # the code under test, with an HTTPClient of its own
        users.assert_called(times=2)

async def test_ping_survives_a_lost_connection():
    async def loses_it(peer):
        await peer.expect(b"PING\r\n")
        await peer.reset()

    async def answers(peer):
        await peer.expect(b"PING\r\n")
        await peer.send(b"+PONG\r\n")

    async with scripted_peer(loses_it, answers) as server:
        assert await ping(server.config) == b"+PONG\r\n"  # the code under test, with a NetworkClient of its own
"""

from pepperpy.network.backoff import no_retry_waits
from pepperpy.network.testing.http import MockHTTP, UnexpectedRequestError
from pepperpy.network.testing.http_reply import Failure, Reply
from pepperpy.network.testing.http_request import MockRequest, UploadedFile
from pepperpy.network.testing.http_route import Route
from pepperpy.network.testing.tcp_connect import connect_failures
from pepperpy.network.testing.tcp_memory import memory_pair
from pepperpy.network.testing.tcp_peer import Peer, ScriptedPeer, ScriptError, scripted_peer
from pepperpy.network.testing.tcp_proxy import FaultProxy, Faults

__all__ = [
    "Failure",
    "FaultProxy",
    "Faults",
    "MockHTTP",
    "MockRequest",
    "Peer",
    "Reply",
    "Route",
    "ScriptError",
    "ScriptedPeer",
    "UnexpectedRequestError",
    "UploadedFile",
    "connect_failures",
    "memory_pair",
    "no_retry_waits",
    "scripted_peer",
]
