"""The package as an import: what it loads, what it ships, what it does to its neighbours."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import pepperpy.network

COMPILED = (
    *("builtin_framers", "endpoint", "frame_reader", "framer", "limit", "python_framers", "receive_buffer"),
    *("receiver", "record", "send_queue", "sender", "stream_protocol", "stuffing", "waiter"),
)


def python(*arguments: str, **options: object) -> str:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload]


@pytest.mark.slow
def test_importing_loads_neither_aiohttp_nor_anything_that_only_connecting_needs() -> None:
    loaded = python("-c", "import pepperpy.network, sys; print(*sys.modules)").split()
    assert "pepperpy.network._core.stream_protocol" in loaded
    connecting = ("aiohttp", "aiohappyeyeballs", "uvloop", "pepperpy.network.tcp.connect")
    for name in (*connecting, "pepperpy.network.messages.framed", "pepperpy.network.requests.exchanges"):
        assert name not in loaded
    # The server and the command line come with their first use.
    assert not {"argparse", "pepperpy.network.tcp.serve", "pepperpy.network.command"} & set(loaded)


FIRST_REQUESTS = """
import asyncio, sys
from pepperpy.network import HTTPClient, HTTPConfig

async def serve(reader, writer):
    while await reader.read(65536):
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://%s:%d/" % server.sockets[0].getsockname()
    async with HTTPClient(HTTPConfig(timeout=5)) as client:
        await client.get(url, timeout=5, params={"a": 1})
        await client.post(url, json={"a": 1})
        await client.post(url, data={"form": "field"}, files={"name": ("name.txt", b"part", "text/plain")})
        print(*sys.modules)
        assert type(client.session).__module__ == "aiohttp.client"
    server.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_http_requests_are_made_without_the_import_of_aiohttp() -> None:
    loaded = set(python("-c", FIRST_REQUESTS).split())
    assert {"pepperpy.network.http.client", "yarl"} <= loaded
    assert not {"aiohttp", "tempfile", "mimetypes"} & loaded


@pytest.mark.slow
def test_what_is_of_aiohttp_is_taken_whenever_the_program_imports_it() -> None:
    code = """
import asyncio, sys
from pepperpy.network import HTTPClient, HTTPConfig
client = HTTPClient()
assert "aiohttp" not in sys.modules
import aiohttp
HTTPConfig(timeout=aiohttp.ClientTimeout(total=0, sock_read=2))
call = client._prepare.call("GET", "http://a", None, None, None, aiohttp.ClientTimeout(5, sock_read=2), True, None, {})
data = aiohttp.FormData({"a": "1"})
form = client._prepare.call("POST", "http://a", None, None, None, None, True, None, {"data": data})
print(call.total, call.limits.read, form.body.headers["Content-Type"])
"""
    assert python("-c", code) == "5 2 application/x-www-form-urlencoded\n"


@pytest.mark.slow
def test_a_command_starts_without_what_only_another_one_needs() -> None:
    loaded = python("-c", "import pepperpy.network.command.main, sys; print(*sys.modules)").split()
    assert "pepperpy.network.command.pipe" in loaded
    slow = {"importlib.metadata", "urllib.request", "platform", "aiohttp", "pepperpy.network.messages.codecs"}
    assert not slow & set(loaded)


def test_the_extensions_are_really_compiled() -> None:
    for name in COMPILED:
        module = __import__(f"pepperpy.network._core.{name}", fromlist=["x"])
        assert not module.__file__.endswith(".py")


@pytest.mark.slow
def test_pepperpy_is_a_namespace_that_other_distributions_can_share(tmp_path: Path) -> None:
    neighbour = tmp_path / "pepperpy" / "neighbour"
    neighbour.mkdir(parents=True)
    (neighbour / "__init__.py").write_text("here = True\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import pepperpy.neighbour, pepperpy.network; print('both')"
    assert python("-c", code, cwd=tmp_path) == "both\n"


def test_there_is_a_typed_face_for_every_compiled_module_that_python_code_uses() -> None:
    folder = Path(pepperpy.network.__file__).parent
    assert (folder / "py.typed").exists()
    for name in (
        "builtin_framers",
        "frame_reader",
        "framer",
        "limit",
        "python_framers",
        "receiver",
        "record",
        "sender",
        "stream_protocol",
        "stuffing",
        "waiter",
    ):
        assert (folder / "_core" / f"{name}.pyi").exists()


READ_TYPES = """
import inspect, typing
import pepperpy.network as network

def functions_of(public):
    if inspect.isfunction(public):
        yield "", public
    for name, member in inspect.getmembers_static(public) if isinstance(public, type) else ():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isfunction(member) and member.__module__.startswith("pepperpy.") and is_public(name):
            yield name, member

def is_public(name):
    return not name.startswith("_") or name.endswith("__")

def read(package, names):
    for name in names:
        public = getattr(package, name)
        if isinstance(public, type):
            typing.get_type_hints(public)
        for member, function in functions_of(public):
            try:
                typing.get_type_hints(function)
            except NameError as error:
                print(f"{name}.{member}: {error}")

# Those first that are there already: nothing has been imported yet that they may need.
read(network, sorted(network.__all__, key=lambda name: name not in vars(network)))
import pepperpy.network.testing as testing
read(testing, testing.__all__)
"""


@pytest.mark.slow
def test_the_types_of_every_public_class_and_method_can_be_read_at_run_time() -> None:
    assert python("-c", READ_TYPES) == ""


def test_the_version_is_that_of_the_distribution() -> None:
    assert pepperpy.network.__version__ == importlib.metadata.version("pepperpy-network")


def test_names_that_only_annotations_need_are_exported() -> None:
    from pepperpy.network import State, Timeout

    assert "connected" in typing.get_args(State)
    assert float in typing.get_args(Timeout)


def test_a_name_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'NetworkClinet'"):
        from pepperpy.network import NetworkClinet  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.slow
def test_without_the_compiled_core_an_import_and_the_command_line_say_what_to_do(tmp_path: Path) -> None:
    package = tmp_path / "pepperpy" / "network"
    shutil.copytree(Path(pepperpy.network.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    words = (
        f"{package} has no compiled core for {sys.implementation.cache_tag}: if it is a checkout, run"
        " Python in another folder to import what pip has installed, or compile it with `pip install -e .`"
    )

    def complaint_of(*arguments: str) -> str:
        command = [sys.executable, "-S", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    assert complaint_of("-c", "import pepperpy.network").endswith(f"\nImportError: {words}\n")
    # A program of a user's that is started by -m gets the error, as any other.
    (tmp_path / "program.py").write_text("import pepperpy.network\n")
    assert complaint_of("-m", "program").endswith(f"\nImportError: {words}\n")
    assert complaint_of("-m", "pepperpy.network", "doctor") == f"pepperpy-network: {words}\n"


@pytest.mark.slow
@pytest.mark.parametrize("dash_o", ["-O", "-OO"])
def test_the_client_works_with_assertions_and_docstrings_stripped(dash_o: str) -> None:
    code = (
        "import asyncio\n"
        "from pepperpy.network import NetworkClient, NetworkConfig\n"
        "async def main():\n"
        "    server = await asyncio.start_server(lambda r, w: (w.write(b'hi\\n'), w.close()), '127.0.0.1', 0)\n"
        "    config = NetworkConfig('127.0.0.1', server.sockets[0].getsockname()[1])\n"
        "    async with server, NetworkClient(config) as client:\n"
        "        print(await client.receive_line(), await client.receive())\n"
        "asyncio.run(main())\n"
    )
    assert python(dash_o, "-c", code) == "b'hi\\n' b''\n"


@pytest.mark.slow
def test_a_program_without_logging_hears_nothing_on_stderr() -> None:
    loggers = "for name in ('tcp', 'pool', 'http'): logging.getLogger(f'pepperpy.network.{name}').warning(name)"
    code = f"import logging, pepperpy.network\n{loggers}"
    shown = f"import logging; logging.basicConfig(format='%(message)s')\n{code}"
    for program, words in ((code, ""), (shown, "tcp\npool\nhttp\n")):
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert done.stderr == words


@pytest.mark.slow
def test_a_build_without_a_compiler_ends_at_once_with_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    if not (setup := Path(__file__).parents[2] / "setup.py").exists():
        pytest.skip("no sources here")
    # Comes in place of Cython, which takes a minute.
    (tmp_path / "Cython").mkdir()
    (tmp_path / "Cython" / "Build.py").write_text("def cythonize(*_, **__): raise AssertionError('it came so far')\n")
    environment = {**os.environ, "CC": "false", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(setup), "-q", "bdist_wheel"]
    done = subprocess.run(command, cwd=setup.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    words = "error: building pepperpy-network needs a C compiler that works: install one (Debian: gcc"
    assert done.stderr.splitlines()[-1].startswith(words)
