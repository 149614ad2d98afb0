"""The HTTP examples of the user's document (../shared/network-module.md), as written there, host names included.

Each runs in a process of its own, in which api.example.com and proxy.example.com are servers of this test, the first
one over TLS with a certificate that the system is made to trust (SSL_CERT_FILE). Nothing of the package is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import ca_file, documented_cert, self_signed_cert
from support.http_faults import answering, response
from support.http_peer import Connection, HTTPPeer, http_peer

from pepperpy.network import HTTPClient, RequestData

# Each test is a program of its own.
pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[3] / "shared" / "network-module.md"
SCRIPT = Path(__file__).parents[1] / "support" / "hosts_loop.py"

FIRST = """
from pepperpy.network import HTTPClient

# Create client
async with HTTPClient() as client:
    # Make GET request
    response = await client.get(
        "https://api.example.com/data",
        headers={"Authorization": "Bearer token"}
    )
    
    # Make POST request with JSON
    response = await client.post(
        "https://api.example.com/users",
        json={
            "str_value": "test",
            "int_value": 123
        }
    )
"""

USAGE = """
from pepperpy.network import HTTPClient
from aiohttp import ClientTimeout

async def make_requests():
    async with HTTPClient() as client:
        # GET request with parameters
        response = await client.get(
            "https://api.example.com/search",
            params={"q": "test"},
            timeout=ClientTimeout(total=30)
        )
        
        # POST request with JSON data
        response = await client.post(
            "https://api.example.com/users",
            json={
                "str_value": "john",
                "int_value": 30,
                "bool_value": True
            }
        )
        
        # PUT request
        response = await client.put(
            "https://api.example.com/users/123",
            json={"str_value": "john.doe"}
        )
        
        # DELETE request
        response = await client.delete(
            "https://api.example.com/users/123"
        )
"""

TYPING = """
from pepperpy.network import RequestData

# Type-safe request data
data: RequestData = {
    "str_value": "test",
    "int_value": 123,
    "float_value": 3.14,
    "bool_value": True,
    "list_value": ["a", 1, 2.0, True],
    "dict_value": {"key": "value"}
}
"""

PROXY = """
from pepperpy.network import HTTPClient

async with HTTPClient() as client:
    # Use proxy
    response = await client.get(
        "https://api.example.com/data",
        proxy="http://proxy.example.com:8080"
    )
"""

UNVERIFIED = """
from pepperpy.network import HTTPClient

async with HTTPClient() as client:
    # Disable SSL verification
    response = await client.get(
        "https://api.example.com/data",
        verify_ssl=False
    )
"""

ERRORS = """
try:
    async with HTTPClient() as client:
        response = await client.get("https://api.example.com")
except NetworkError as e:
    print(f"Network error: {e}")
"""


@pytest.mark.parametrize("example", [FIRST, USAGE, TYPING, PROXY, UNVERIFIED, ERRORS])
def test_the_examples_here_are_those_of_the_document(example: str) -> None:
    if not DOCUMENT.exists():
        pytest.skip("the user's document is not beside this checkout")
    assert example.strip() in DOCUMENT.read_text()


async def run(example: str, loop_name: str, ports: dict[str, int], *, trusted: bool = True) -> str:
    """The output of the example, followed by what `response` was at its end."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    if trusted:
        environment["SSL_CERT_FILE"] = str(ca_file())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(SCRIPT), loop_name, json.dumps(ports)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    output, errors = await process.communicate(example.encode())
    assert process.returncode == 0, errors.decode()
    return output.decode()


@contextlib.asynccontextmanager
async def api(certificate: Path) -> AsyncIterator[HTTPPeer]:
    async with http_peer(answering(response(b"the answer")), certificate=certificate) as peer:
        yield peer


async def test_the_first_example_runs_as_written(loop_name: str) -> None:
    async with api(documented_cert()) as peer:
        output = await run(FIRST + "return response", loop_name, {"api.example.com": peer.port})
        assert json.loads(output) == "the answer"
        get, post = peer.requests
        assert (get.method, get.target, get.headers["Authorization"]) == ("GET", "/data", "Bearer token")
        assert (post.method, post.target, post.headers["Content-Type"]) == ("POST", "/users", "application/json")
        assert json.loads(post.body) == {"str_value": "test", "int_value": 123}
        assert get.connection == post.connection
        assert get.headers["Host"] == "api.example.com"


async def test_the_usage_example_runs_as_written(loop_name: str) -> None:
    async with api(documented_cert()) as peer:
        await run(USAGE + "await make_requests()", loop_name, {"api.example.com": peer.port})
        assert [(r.method, r.target) for r in peer.requests] == [
            ("GET", "/search?q=test"),
            ("POST", "/users"),
            ("PUT", "/users/123"),
            ("DELETE", "/users/123"),
        ]
        bodies = [json.loads(r.body) if r.body else None for r in peer.requests]
        john = {"str_value": "john", "int_value": 30, "bool_value": True}
        assert bodies == [None, john, {"str_value": "john.doe"}, None]


async def test_the_typing_example_is_valid_and_can_be_sent() -> None:
    names: dict[str, Any] = {}
    exec(TYPING, names)
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        await client.post(peer.url, json=names["data"])
        assert json.loads(peer.requests[0].body) == names["data"]
        assert names["data"]["list_value"] == ["a", 1, 2.0, True]


async def test_the_proxy_example_runs_as_written(loop_name: str) -> None:
    """The proxy is asked for api.example.com:443 by that name, and sees nothing of what goes through."""
    async with api(documented_cert()) as peer:

        async def relay(connection: Connection) -> None:
            await connection.read_head()
            reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
            await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await connection.relay(reader, writer)

        async with http_peer(relay) as proxy:
            output = await run(PROXY + "return response", loop_name, {"proxy.example.com": proxy.port})
        assert json.loads(output) == "the answer"
        assert [(r.method, r.target) for r in proxy.requests] == [("CONNECT", "api.example.com:443")]
        assert [(r.method, r.target) for r in peer.requests] == [("GET", "/data")]


async def test_the_example_without_verification_runs_as_written(loop_name: str) -> None:
    async with api(self_signed_cert()) as peer:
        ports = {"api.example.com": peer.port}
        assert json.loads(await run(UNVERIFIED + "return response", loop_name, ports, trusted=False)) == "the answer"


async def test_the_error_example_runs_as_written(loop_name: str) -> None:
    imports = "from pepperpy.network import HTTPClient, NetworkError\n"
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        output = await run(imports + ERRORS, loop_name, {"api.example.com": bound.getsockname()[1]})
    assert output.startswith("Network error: GET https://api.example.com: cannot connect: ")


def test_the_reference_signatures_hold() -> None:
    common = ["self", "url", "params", "headers", "proxy", "timeout", "verify_ssl"]
    for name, parameters in {
        "get": common,
        "post": [*common, "json"],
        "put": [*common, "json"],
        "patch": [*common, "json"],
        "delete": [*common, "json"],
        "head": common,
        "options": common,
    }.items():
        method = getattr(HTTPClient, name)
        assert inspect.iscoroutinefunction(method)
        signature = inspect.signature(method)
        assert list(signature.parameters)[: len(parameters)] == parameters
        defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
        assert defaults["verify_ssl"] is True
        assert {defaults[name] for name in parameters[2:] if name != "verify_ssl"} == {None}
        assert signature.return_annotation == "str"
        words = f"Send {name.upper()} request."
        assert (inspect.getdoc(method) or "").startswith(words)


def test_request_data_is_a_type_that_annotations_can_use() -> None:
    def function(data: RequestData) -> None: ...

    assert inspect.get_annotations(function, eval_str=True)["data"] == RequestData
