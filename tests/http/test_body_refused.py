"""What cannot be sent is refused before a byte leaves, with words that say what is wrong and repeat no value."""

from __future__ import annotations

import array
import asyncio
import ctypes
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.upload_site import make, once

from pepperpy.network import InvalidRequestError
from pepperpy.network.http.body import make_body
from pepperpy.network.http.sources import as_bytes
from pepperpy.network.json_codec import JSONCodec, default_codec


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    def refuse(value: Any) -> bytes:
        raise KeyError("reason")

    with pytest.raises(InvalidRequestError, match=r"json.*together with data"):
        make(b"", json=1)
    with pytest.raises(InvalidRequestError, match=r"json.*together with files"):
        make(json=1, files={})
    with pytest.raises(InvalidRequestError, match=r"json.*KeyError: 'reason'") as caught:
        make_body(None, {}, None, JSONCodec("refusing", refuse, default_codec().loads))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(InvalidRequestError, match=r"json.*object") as caught:
        make(json=object())
    for text in ("\ud800", {"a": "\ud800"}, {"\ud800": "a"}):
        with pytest.raises(InvalidRequestError, match=r"data.*surrogates"):
            make(text)
    with (tmp_path / "f").open("wb") as file:
        with pytest.raises(InvalidRequestError, match=r"data.*not open for reading"):
            make(file)
    with pytest.raises(InvalidRequestError, match=r"data.*closed"):
        make(file)
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "missing")  # Prepare makes it an InvalidRequestError as well
    with pytest.raises(IsADirectoryError):
        make(files={"a": tmp_path})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequestError, match=r"pipe.*no regular file"):
        make(tmp_path / "pipe")


@pytest.mark.parametrize("bad", ['"', "\r", "\n", "\0", "\x7f"])
def test_a_name_that_would_end_its_header_is_refused(bad: str) -> None:
    for files in ({f"a{bad}": b""}, {"a": (f"x{bad}y", b"")}, {"a": ("x", b"", f"text/plain{bad}")}):
        with pytest.raises(InvalidRequestError, match=r"files.*control character"):
            make(files=files)
    with pytest.raises(InvalidRequestError, match=r"data.*control character"):
        make({f"a{bad}": "1"}, files={"a": b""})


def test_a_name_that_has_no_encoding_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"files\['a'\].*surrogates"):
        make(files={"a": ("\udcff", b"")})


@pytest.mark.parametrize("data", [1, 1.5, object(), {1, 2}, iter([b"a"]), (x for x in [b"a"]), once, print])
def test_what_is_no_body_is_refused_with_what_is_one(data: object) -> None:
    with pytest.raises(TypeError, match=rf"data must be bytes.*FormData, not {type(data).__name__}"):
        make(data)
    with pytest.raises(TypeError, match=rf"files\['a'\] must be bytes.*tuple.*, not {type(data).__name__}"):
        make(files={"a": data})
    with pytest.raises(TypeError, match=r"files\['a'\] must be bytes"):
        make(files={"a": ("x", data)})
    with pytest.raises(TypeError, match="files must be a mapping"):
        make(files=data)
    with pytest.raises(TypeError, match="data, together with files, must be a mapping"):
        make(data, files={"a": b""})


def test_whatever_has_a_buffer_is_sent_as_its_bytes() -> None:
    numbers = array.array("I", [1, 2**31])
    as_ctypes = (ctypes.c_uint32 * 2)(*numbers)
    every_second = memoryview(bytes(range(8)))[::2]
    for value, sent in (
        (numbers, numbers.tobytes()),
        (as_ctypes, numbers.tobytes()),
        (memoryview(numbers), numbers.tobytes()),
        (every_second, bytes(range(0, 8, 2))),
        (array.array("B"), b""),
    ):
        body = make(value)
        assert (body.payload(), body.size, body.can_be_sent) == (sent, len(sent), True)
        assert as_bytes(value) == sent
        assert sent in bytes(_all_of(make(files={"a": value})))


def _all_of(body: Any) -> bytearray:
    taken = bytearray()
    asyncio.run(body.feed(taken.extend))
    return taken


def test_what_is_no_form_is_refused_without_its_values() -> None:
    for data in ([b"secret"], ["secret"], [("a", "secret", 1)], ["ab"], [1]):
        with pytest.raises(TypeError, match="no pair") as caught:
            make(data)
        assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="names of type str, not int"):
        make({1: "secret"})
    with pytest.raises(TypeError, match="'a' to bytes"):
        make({"a": b"secret"})
    with pytest.raises(TypeError, match="'a' to dict"):
        make({"a": ["x", {}]})


def test_text_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with (tmp_path / "f").open() as file, tempfile.NamedTemporaryFile("w+") as named:
        for text in (file, named, io.StringIO("x")):
            with pytest.raises(TypeError, match="data must be a file opened in binary mode"):
                make(text)
            with pytest.raises(TypeError, match=r"files\['a'\] must be a file opened in binary mode"):
                make(files={"a": ("x", text)})


def test_other_arguments_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError, match="progress must be callable, not int"):
        make(b"", progress=1)
    for value in ((), ("x",), ("x", b"", "text/plain", 1)):
        with pytest.raises(TypeError, match=r"files\['a'\] must be a file, or"):
            make(files={"a": value})
    with pytest.raises(TypeError, match=r"files\['a'\]: the file name must be a str, not int"):
        make(files={"a": (1, b"")})
    with pytest.raises(TypeError, match=r"files\['a'\]: the content type must be a str, not bytes"):
        make(files={"a": ("x", b"", b"text/plain")})


def test_a_repr_shows_nothing_of_the_body() -> None:
    for body in (make(b"secret"), make(b"secret", progress=print), make({"a": "secret"}, files={"b": b"secret"})):
        assert "secret" not in repr(body) + repr(body.payload() if body.size != 6 else "")
