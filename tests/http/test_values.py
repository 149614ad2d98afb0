"""Values go out as they are meant, in all places: each of a name, members of enums, tokens of any kind."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy
from support.http_faults import response
from support.http_peer import Connection, HTTPPeer, Request, http_peer
from yarl import URL

from pepperpy.network import BasicAuth, BearerAuth, HTTPClient, HTTPConfig, RefreshingAuth
from pepperpy.network.testing import MockHTTP

PAIRS = [("a", "1"), ("b", "3"), ("a", "2")]
QUERIES: dict[str, Callable[[], Any]] = {
    "MultiDict": lambda: MultiDict(PAIRS),
    "MultiDictProxy": lambda: MultiDictProxy(MultiDict(PAIRS)),
    "the query of a URL": lambda: URL("http://x/?a=1&b=3&a=2").query,
    "a list": lambda: PAIRS,
    "a tuple of lists": lambda: tuple(map(list, PAIRS)),
    "a generator": lambda: (pair for pair in PAIRS),
    "a list of values": lambda: [("a", ["1"]), ("b", 3), ("c", None), ("a", ("2",))],
}


class Text(str, enum.Enum):  # noqa: UP042  (StrEnum is the one that formats itself well)
    pass


class Grant(Text):
    PASSWORD = "password"


class Page(int, enum.Enum):
    FIRST = 1


class Ratio(float, enum.Enum):
    HALF = 0.5


class Kind(enum.StrEnum):
    TEXT = "text"


class Size(enum.IntEnum):
    LARGE = 3


async def recording(connection: Connection) -> None:
    while True:
        await connection.read_request()
        await connection.send(response(b"{}"))


def asked(peer: HTTPPeer) -> Request:
    return peer.requests[-1]


class Adding:
    def pre_request(self, method: str, url: str, **arguments: Any) -> None:
        arguments["params"]["by"] = "me"


@pytest.mark.parametrize("given", QUERIES)
async def test_all_parameters_of_a_name_are_sent_however_they_are_given(given: str, tmp_path: Any) -> None:
    make = QUERIES[given]
    async with http_peer(recording) as peer, HTTPClient() as client:
        await client.get(peer.url, params=make())
        async with client.stream("GET", peer.url, params=make()) as stream:
            await stream.read()
        await client.download(peer.url, tmp_path / "file", params=make())
        for request in peer.requests:
            assert sorted(request.target[2:].split("&")) == ["a=1", "a=2", "b=3"]
    async with http_peer(recording) as peer, HTTPClient(HTTPConfig(interceptors=[Adding()])) as client:
        await client.get(peer.url, params=make())
        assert sorted(asked(peer).target[2:].split("&")) == ["a=1", "a=2", "b=3", "by=me"]


@pytest.mark.parametrize("given", QUERIES)
async def test_a_configuration_and_a_route_take_parameters_as_a_request_does(given: str) -> None:
    config = HTTPConfig(params=QUERIES[given]())
    assert config == HTTPConfig(params=config.params)
    async with http_peer(recording) as peer, HTTPClient(config) as client:
        await client.get(peer.url)
        assert sorted(asked(peer).target[2:].split("&")) == ["a=1", "a=2", "b=3"]
        await client.get(peer.url, params=[("a", 7), ("a", 8), ("b", None)])
        assert asked(peer).target == "/?a=7&a=8"
    with MockHTTP() as mock:
        mock.get("http://x.test/", params=QUERIES[given]())
        async with HTTPClient() as client:
            assert await client.get("http://x.test/?a=1&a=2&b=3") == ""


async def test_headers_of_a_multidict_may_be_changed_by_an_interceptor() -> None:
    class Signing:
        def pre_request(self, method: str, url: str, **arguments: Any) -> None:
            arguments["headers"]["x-signed"] = f"{arguments['headers'].get('X-A')}"

    for headers in (CIMultiDict({"x-a": "1"}), CIMultiDictProxy(CIMultiDict({"x-a": "1"})), {"X-A": "1"}):
        async with http_peer(recording) as peer, HTTPClient(HTTPConfig(interceptors=[Signing()])) as client:
            await client.get(peer.url, headers=headers)
            assert asked(peer).headers["X-Signed"] == "1"
        assert "x-signed" not in headers


async def test_members_of_enums_are_sent_as_what_they_equal() -> None:
    fields = {"a": Grant.PASSWORD, "b": Page.FIRST, "c": Ratio.HALF, "d": Kind.TEXT, "e": Size.LARGE, Grant.PASSWORD: 1}
    form = "a=password&b=1&c=0.5&d=text&e=3&password=1"
    async with http_peer(recording) as peer, HTTPClient() as client:
        await client.get(peer.url, params=fields)
        assert asked(peer).target == f"/?{form}"
        await client.get(peer.url, params={"all": [Page.FIRST, Grant.PASSWORD]})
        assert asked(peer).target == "/?all=1&all=password"
        await client.post(peer.url, data=fields)
        assert asked(peer).body.decode() == form
        await client.post(peer.url, data=Grant.PASSWORD)
        assert asked(peer).body == b"password"
        await client.post(peer.url, json={"a": Grant.PASSWORD, "b": [Page.FIRST], Kind.TEXT: Size.LARGE})
        assert asked(peer).body == b'{"a":"password","b":[1],"text":3}'
        headers = {Grant.PASSWORD: Kind.TEXT, "X-Grant": Grant.PASSWORD}
        await client.get(peer.url, headers=headers, cookies={Kind.TEXT: Grant.PASSWORD})
        seen = asked(peer).headers
        assert (seen["password"], seen["X-Grant"], seen["Cookie"]) == ("text", "password", "text=password")


async def test_members_of_enums_in_a_multipart_body() -> None:
    class Name(Text):
        FILE = "a.bin"
        TYPE = "x/y"

    async with http_peer(recording) as peer, HTTPClient() as client:
        await client.post(
            peer.url, data={Kind.TEXT: Page.FIRST}, files={Grant.PASSWORD: (Name.FILE, b"abc", Name.TYPE)}
        )
        body = asked(peer).body.decode()
        assert 'name="text"\r\n' in body and "\r\n\r\n1\r\n" in body
        assert 'name="password"; filename="a.bin"\r\n' in body and "Content-Type: x/y\r\n" in body
        assert "Name." not in body and "Grant." not in body and "Kind." not in body


async def test_urls_methods_and_settings_may_be_members_of_enums() -> None:
    seen = []

    class Looking:
        def pre_request(self, method: str, url: str, **arguments: Any) -> None:
            seen.append(url)

    async with http_peer(recording) as peer:

        class Place(Text):
            BASE = peer.url + "/v1"
            USERS = "/users"
            ALL = peer.url + "/all"
            QUERY = "?a=1"
            PUT = "put"
            NOWHERE = "http://127.0.0.1:1/?key=secret"

        config = HTTPConfig(
            Place.BASE, headers={"X-A": Place.USERS}, cookies={"c": Place.PUT}, interceptors=[Looking()]
        )
        assert type(config.base_url) is str
        async with HTTPClient(config) as client:
            for url, target in ((Place.USERS, "/v1/users"), (Place.ALL, "/all"), (Place.QUERY, "/v1?a=1")):
                await client.request(Place.PUT, url)
                assert (asked(peer).method, asked(peer).target) == ("PUT", target)
                assert (asked(peer).headers["X-A"], asked(peer).headers["Cookie"]) == ("/users", "c=put")
                assert seen.pop() == url.value
            await client.get("http://elsewhere.test/a", proxy=Place.ALL)
            assert asked(peer).target == "http://elsewhere.test/a"
        async with HTTPClient(HTTPConfig(proxy=Place.ALL)) as client:
            await client.get("http://elsewhere.test/b")
            assert asked(peer).target == "http://elsewhere.test/b"
            with pytest.raises(ValueError, match=r"127\.0\.0\.1:1/\?key=\*\*\*: "):
                await client.get(Place.NOWHERE, headers={"a b": "c"})


TOKENS = ["12|xJ3kQ7", "1234:AAH-x_y", "a=b", "a b", "{x}", '"q"', "==", "é"]


@pytest.mark.parametrize("token", TOKENS)
async def test_any_token_that_can_stand_in_a_header_is_sent_as_it_is(token: str) -> None:
    for auth in (BearerAuth(token), RefreshingAuth(lambda: token), lambda: token, lambda: (token, 60)):
        async with http_peer(recording) as peer, HTTPClient(HTTPConfig(auth=auth)) as client:
            await client.get(peer.url)
            assert asked(peer).headers["Authorization"].encode("latin-1").decode() == f"Bearer {token}"


async def test_credentials_may_be_members_of_enums() -> None:
    class Secret(Text):
        USER = "joe"
        WORD = "word"
        SCHEME = "Token"

    assert BasicAuth(Secret.USER, Secret.WORD) == BasicAuth("joe", "word")
    assert BearerAuth(Secret.WORD).fixed == "Bearer word"
    assert await RefreshingAuth(lambda: Secret.WORD, scheme=Secret.SCHEME).header() == "Token word"
