"""Forms with files arrive part for part, with the names that they were given."""

from __future__ import annotations

import io
import re
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support.upload_site import BIG, OCTETS, Got, make, once, site

from pepperpy.network import InvalidRequestError
from pepperpy.network.http.aiohttp_transport.payload import data_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    return path


class Parts:
    """The parts of a multipart body, by a parser that is not aiohttp's."""

    def __init__(self, got: Got) -> None:
        found = re.fullmatch(r"multipart/form-data; boundary=([0-9a-f]+)", got.content_type)
        assert found is not None
        delimiter = b"--" + found[1].encode()
        assert got.content.startswith(delimiter + b"\r\n") and got.content.endswith(b"\r\n" + delimiter + b"--\r\n")
        # The first delimiter has no line end before it.
        pieces = (b"\r\n" + got.content).split(b"\r\n" + delimiter)
        self.all = [self._parse(piece) for piece in pieces[1:-1]]

    @staticmethod
    def _parse(piece: bytes) -> tuple[str, str | None, bytes]:
        """The disposition, the content type and the content."""
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        disposition = headers.pop("Content-Disposition")
        content_type = headers.pop("Content-Type", None)
        assert not headers
        return disposition, content_type, content


@pytest.mark.slow
async def test_a_multipart_form_arrives_part_for_part(tmp_path: Path) -> None:
    path = tmp_path / "Größe; 100%\\.json"
    path.write_bytes(BIG * 16)
    assert len(BIG) * 16 > 5_000_000
    with (tmp_path / "a.tar.gz").open("w+b") as file:
        file.write(b"..gzip")
        file.seek(2)
        files = {
            "path": path,
            "file": file,
            "bytes": b"\r\n--\r\n",
            "str": "ü",
            "memory": io.BytesIO(b"m"),
            "two": ("ü b.png", b"2"),
            "three": ("c", "3", "text/csv"),
            "no name": (None, "{}", "application/json"),
            "no name, no type": (None, "x"),
            "large": ("l", BIG * 4),
        }
        expected = [
            ('form-data; name="f"', None, "ü\r\n".encode()),
            ('form-data; name="g"', None, b"1"),
            ('form-data; name="g"', None, b"true"),
            ('form-data; name="path"; filename="Größe; 100%\\\\.json"', "application/json", BIG * 16),
            ('form-data; name="file"; filename="a.tar.gz"', OCTETS, b"gzip"),
            ('form-data; name="bytes"; filename="bytes"', OCTETS, b"\r\n--\r\n"),
            ('form-data; name="str"; filename="str"', "text/plain; charset=utf-8", "ü".encode()),
            ('form-data; name="memory"; filename="memory"', OCTETS, b"m"),
            ('form-data; name="two"; filename="ü b.png"', "image/png", b"2"),
            ('form-data; name="three"; filename="c"', "text/csv", b"3"),
            ('form-data; name="no name"', "application/json", b"{}"),
            ('form-data; name="no name, no type"', "text/plain; charset=utf-8", b"x"),
            ('form-data; name="large"; filename="l"', OCTETS, BIG * 4),
        ]
        async with site() as it:
            body = make({"f": "ü\r\n", "g": [1, None, True]}, files=files)
            assert body.replayable
            await it.post(body)
            await it.post(body, "/redirect")
            assert len(it.got) == 3
            for got in it.got:
                assert Parts(got).all == expected
                assert got.length == len(got.content) == body.size
                assert got.content_type == body.headers["Content-Type"]


async def test_the_same_name_may_have_several_files() -> None:
    async with site() as it:
        got = await it.post(make(files=[("a", b"1"), ("a", ("x", b"2"))]))
        assert [part[2] for part in Parts(got).all] == [b"1", b"2"]


async def test_aiohttp_reads_the_names_as_they_were() -> None:
    names = ["größe €", "a b;c=d", "100%22", "back\\slash", "'x'", "日本語.txt"]
    seen = []

    async def read(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            seen.append((part.name, part.filename, bytes(await part.read())))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        body = make(files={name: (name, b"x") for name in names})
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        await session.post(url, data=data_of(body.payload(), body), headers=body.headers)
    await runner.cleanup()
    assert seen == [(name, name, b"x") for name in names]


async def test_a_multipart_form_with_a_stream_is_chunked_and_sent_once() -> None:
    async with site() as it:
        body = make(files={"a": b"1", "b": ("b", once(b"2", b"3"))})
        assert not body.replayable and body.size is None
        got = await it.post(body)
        assert got.length is None
        assert [part[2] for part in Parts(got).all] == [b"1", b"23"]
        with pytest.raises(InvalidRequestError):
            body.payload()
