"""Each error that names an extra: the extra has that package, and the text says what to install."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from pepperpy.network import HTTPConfig, MsgPack, TLSConfig, UsageError, tls, tls_files
from pepperpy.network.http.h1 import decoding
from pepperpy.network.json_codec import default_codec
from pepperpy.network.json_types import decode_as
from pepperpy.network.otel import OpenTelemetry

ROOT = Path(__file__).parents[2]


class OwnType:
    pass


def make_socks_config() -> None:
    HTTPConfig(proxy="socks5h://127.0.0.1:9")


def read_as_type() -> None:
    decode_as(b"{}", OwnType, default_codec())


def trust_the_system() -> None:
    tls.client_context(TLSConfig(system_trust=True))


def trace() -> None:
    OpenTelemetry()


def decode_brotli() -> None:
    decoding.decoder_of(b"br")


def decode_zstd() -> None:
    decoding.decoder_of(b"zstd")


ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
# Package and extra; modules that are hidden; what needs them; its words.
CASES: dict[tuple[str, str], tuple[tuple[str, ...], Callable[[], object], str]] = {
    ("python-socks", "proxy"): (("python_socks.async_.asyncio",), make_socks_config, "a SOCKS proxy"),
    ("msgspec", "msgpack"): (("msgspec.msgpack",), MsgPack, "MsgPack"),
    ("msgspec", "json"): (("msgspec", "pydantic"), read_as_type, f"reading JSON as {OwnType!r}"),
    ("truststore", "truststore"): (("truststore",), trust_the_system, "system_trust"),
    ("opentelemetry-api", "otel"): (("opentelemetry.trace",), trace, "OpenTelemetry"),
    ("brotli", "compression"): (("brotli",), decode_brotli, "a body compressed by Brotli"),
    ("backports.zstd", "compression"): ((ZSTD,), decode_zstd, "a body compressed by zstd"),
}


def named_in_the_code() -> set[tuple[str, str]]:
    """Package and extra of each call that makes such an error."""
    found = set()
    for path in (ROOT / "pepperpy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("not_installed", "what_is_needed"):
                _, package, extra = node.args
                if isinstance(package, ast.Constant) and isinstance(extra, ast.Constant):
                    found.add((package.value, extra.value))
    return found


def test_each_error_that_names_an_extra_is_among_the_cases() -> None:
    assert named_in_the_code() == set(CASES)


@pytest.mark.parametrize(("package", "extra"), CASES)
def test_an_extra_has_the_package_that_its_error_names(package: str, extra: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert package in [re.split(r"[^\w.-]", requirement)[0] for requirement in extras[extra]]
    assert f"`{extra}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("package", "extra"), CASES)
def test_what_needs_a_package_that_is_missing_says_what_to_install(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, needing, what = CASES[package, extra]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(tls_files, "_TRUST_IS_FILES", False)
    # What other tests have made with these packages.
    tls._context.cache_clear()
    with pytest.raises((UsageError, decoding.BadEncoding)) as caught:
        needing()
    assert str(caught.value) == f"{what} needs {package}, which is in the extra '{extra}': pip install {package}"
    if isinstance(caught.value, UsageError):
        assert isinstance(caught.value, ModuleNotFoundError)
        assert (caught.value.details["package"], caught.value.details["extra"]) == (package, extra)
