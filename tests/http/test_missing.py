"""What a call needs and this machine has not, a file or a package: a NetworkError, and the built-in error as well."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    InvalidRequestError,
    MsgPack,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    UsageError,
)

NO_MODES = not hasattr(os, "geteuid") or os.geteuid() == 0


async def check_unreadable(path: Path, kind: type[OSError], **arguments: Any) -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        for asking in (client.post(f"{peer.url}/?key=secret", **arguments), enter(client, peer.url, arguments)):
            with pytest.raises(kind) as caught:
                await asking
            error: Any = caught.value
            assert isinstance(error, InvalidRequestError)
            assert f"cannot read '{path}': {error.strerror}" in str(error) and "secret" not in str(error)
            assert error.details["method"] == "POST" and error.details["phase"] == "prepare"
            assert (error.errno, error.filename, type(error.__cause__)) == (error.__cause__.errno, str(path), kind)
            assert type(pickle.loads(pickle.dumps(error))) is type(error)
        assert not peer.connections and client.stats.in_flight == 0


async def enter(client: HTTPClient, url: str, arguments: Any) -> None:
    async with client.stream("POST", url, **arguments):
        pass


async def test_a_body_whose_file_is_missing_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for arguments in ({"data": missing}, {"files": {"a": missing}}, {"files": {"a": ("name", missing)}}):
        await check_unreadable(missing, FileNotFoundError, **arguments)
    await check_unreadable(tmp_path, IsADirectoryError, data=tmp_path)
    (tmp_path / "file").touch()
    await check_unreadable(tmp_path / "file" / "a", NotADirectoryError, data=tmp_path / "file" / "a")


@pytest.mark.skipif(NO_MODES, reason="root may read everything; Windows has no such mode")
async def test_a_body_whose_file_must_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o000)
    await check_unreadable(tmp_path / "file", PermissionError, data=tmp_path / "file")


async def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    async with HTTPClient() as client:
        with pytest.raises(InvalidRequestError, match=r"embedded null (byte|character)"):
            await client.post("http://127.0.0.1:1/", data=Path("a\0b"))
        loop = tmp_path / "loop"
        loop.symlink_to(loop)
        with pytest.raises(InvalidRequestError, match=r"loop': Too many levels of symbolic links$") as caught:
            await client.post("http://127.0.0.1:1/", data=loop)
        assert isinstance(caught.value, OSError)


@pytest.fixture
def without_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)


def check_words(error: BaseException, package: str) -> None:
    assert isinstance(error, NetworkError) and isinstance(error, UsageError) and isinstance(error, ImportError)
    assert error.name == package.replace("-", "_") and error.details["package"] == package
    assert str(error).partition(" (phase")[0].endswith(f"pip install {package}")
    same = pickle.loads(pickle.dumps(error))
    assert (str(same), same.name, type(same)) == (str(error), error.name, type(error))


@pytest.mark.usefixtures("without_socks")
async def test_a_socks_proxy_without_its_package_says_what_to_install() -> None:
    proxy = "socks5h://127.0.0.1:9"
    with pytest.raises(ImportError) as caught:
        HTTPConfig(proxy=proxy)
    check_words(caught.value, "python-socks")
    async with HTTPClient() as client:
        with pytest.raises(ImportError) as caught:
            await client.get("http://127.0.0.1:9/", proxy=proxy)
        check_words(caught.value, "python-socks")
    with pytest.raises(ImportError) as caught:
        await NetworkClient(NetworkConfig("127.0.0.1", 9, proxy=proxy)).connect()
    check_words(caught.value, "python-socks")


async def test_a_proxy_that_loses_its_package_later_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config = HTTPConfig(proxy="socks5h://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)
    async with HTTPClient(config) as client:
        with pytest.raises(ImportError) as caught:
            await client.get("http://127.0.0.1:9/x?key=secret")
        check_words(caught.value, "python-socks")
        assert isinstance(caught.value, UsageError)
        assert (caught.value.details["url"], caught.value.details["attempt"]) == ("http://127.0.0.1:9/x?key=***", 1)


async def test_other_packages_that_are_missing_are_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("msgspec", "msgspec.msgpack", "pydantic"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        MsgPack()
    check_words(caught.value, "msgspec")
    async with http_peer(answering(response(b"1"))) as peer, HTTPClient() as client:
        with pytest.raises(ModuleNotFoundError) as caught:
            await client.get_json(peer.url, type=_Own)
        check_words(caught.value, "msgspec")


class _Own:
    pass
