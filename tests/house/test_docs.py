"""README.md, docs/ and the map of the tests: snippets run as shown, pictures name each file, test files stay short."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import tests_map
from support.cancelling import until
from support.documented import EMPTY, documented_server
from support.redis import command

from pepperpy.network import HTTPClient, HTTPConfig, LengthPrefixed, NetworkClient, NetworkConfig, testing
from pepperpy.network.testing import Peer, scripted_peer

ROOT = Path(__file__).parents[2]
MOST_LINES = 420
DOCUMENTS = (
    *(path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "benchmarks"),
)
RUN = "\nasyncio.run(main())\n"


class Snippet(NamedTuple):
    place: str
    code: str

    def names(self, port: int = 6379) -> dict[str, Any]:
        """What the snippet defines, when all but its last line has run."""
        names: dict[str, Any] = {}
        exec(self.code.replace(RUN, "").replace("6379", str(port)).replace("sha256:...", f"sha256:{EMPTY}"), names)
        return names


def snippets() -> Iterator[Snippet]:
    for path in DOCUMENTS:
        text = path.read_text()
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            yield Snippet(f"{path.name}:{text.count(chr(10), 0, found.start()) + 2}", found[1])


ALL = list(snippets())
PROGRAMS = [snippet for snippet in ALL if RUN in snippet.code]
TESTS = [snippet for snippet in ALL if "async def test_" in snippet.code]
WITH_HTTP = [snippet for snippet in ALL if "(client: HTTPClient) -> None:" in snippet.code]


def by(marked: list[Snippet]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("snippet", marked, ids=[snippet.place for snippet in marked])


def snippet_with(words: str) -> dict[str, Any]:
    (found,) = [snippet for snippet in ALL if words in snippet.code]
    return found.names()


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """What a snippet switches on in the log is on for that test alone."""
    levels = {name: logging.getLogger(name).level for name in ("", "pepperpy.network")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@by(ALL)
def test_a_snippet_is_python_and_what_it_defines_can_be_defined(snippet: Snippet) -> None:
    ast.parse(snippet.code)
    assert snippet.names()


@by(PROGRAMS)
async def test_a_program_runs_as_shown(
    snippet: Snippet, redis_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, printed = snippet.names(redis_port), []
    names["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    with documented_server() if "api.example.com" in snippet.code else contextlib.nullcontext():
        main = asyncio.create_task(names["main"]())
        if "while True:" in snippet.code:
            await publish(redis_port)
            await until(lambda: main.done() or any("hello" in line for line in printed), "it has come")
            main.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await main
        else:
            await main
    assert printed
    assert not any("missed some" in line for line in printed)


@by(WITH_HTTP)
async def test_a_function_that_takes_an_http_client_does_what_it_shows(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = snippet.names()
    names["print"] = lambda *words: None
    functions = [value for value in names.values() if inspect.iscoroutinefunction(value)]
    shown = [function for function in functions if list(inspect.signature(function).parameters) == ["client"]]
    with documented_server() as mock:
        for function in shown:
            async with HTTPClient(HTTPConfig("https://api.example.com/v1")) as client:
                await function(client)
    assert shown and mock.requests


async def publish(port: int) -> None:
    """Say hello to who subscribes, as soon as somebody does."""
    async with NetworkClient(NetworkConfig("127.0.0.1", port)) as client:
        while await client.request(command(b"PUBLISH", b"news", b"hello"), NetworkClient.receive_line) != b":1\r\n":
            pass


@by(TESTS)
async def test_a_test_passes(snippet: Snippet) -> None:
    (test,) = [value for name, value in snippet.names().items() if name.startswith("test_")]
    await test()


async def test_the_messages_are_those_that_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(b"\0\0\0\x05hello")
        await peer.send(b"".join(LengthPrefixed(4).encode(b"answer")) + b'{"n": 1}\n[2]\n')
        await peer.send_eof()

    async with scripted_peer(script) as server, NetworkClient(server.config) as client:
        await snippet_with("async def talk")["talk"](client)
    assert capsys.readouterr().out == "b'answer'\n{'n': 1}\n[2]\n"


async def test_the_codec_of_your_own_works() -> None:
    codec = snippet_with("class TypedValue")["TypedValue"]()
    messages = [(kind, bytes(kind)) for kind in range(256)]
    async with testing.memory_pair() as (a, b):
        await a.framed(codec).send_many(messages)
        assert [await b.framed(codec).receive() for _ in messages] == messages


async def test_the_clients_of_httpx_can_be_made() -> None:
    names = snippet_with("def make_internal_client")
    for make in (names["make_internal_client"], names["make_proxied_client"]):
        async with make() as client:
            assert not client.is_closed


# ---- The pictures ----


def named_in(text: str) -> list[str]:
    """Files, and folders with a slash behind them; not those of other folders."""
    return sorted(re.findall(r"(?<![\w./])(?:\w+\.(?:py|pyx|pxd|h)\b|\w+/(?!\w))", text))


def parts_of(folder: Path) -> list[str]:
    """The modules in a folder and the packages in it; of a compiled module, the one file with its code."""
    packages = [f"{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    core = ROOT / "ext" / folder.relative_to(ROOT)
    compiled = [path for path in core.glob("*.*") if path.suffix != ".pxd" or not path.with_suffix(".pyx").exists()]
    files = [path.name for path in (*folder.glob("*.py"), *compiled) if path.name != "__init__.py"]
    return sorted(packages + files)


FOLDERS = sorted(path.parent for path in (ROOT / "pepperpy" / "network").rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: str(folder.relative_to(FOLDERS[0])))
def test_a_folder_names_every_one_of_its_files_once(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert docstring is not None
    assert named_in(docstring) == parts_of(folder)


def test_the_architecture_names_what_lies_beside_the_folders_once() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = text[text.index("## The storeys") : text.index("`import pepperpy.network` loads")]
    drawn = "\n".join(line for line in picture.split("\n") if line.startswith("    "))
    assert named_in(drawn) == parts_of(FOLDERS[0])


def test_no_line_of_the_documents_is_longer_than_a_line_of_code() -> None:
    for path in DOCUMENTS:
        for number, line in enumerate(path.read_text().split("\n"), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{path.name}:{number}"


def test_every_example_is_in_the_table_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"`{path.name}" in readme


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert "://" in target or (path.parent / target).exists(), target


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(document.read_text() for document in (*DOCUMENTS, ROOT / "benchmarks" / "README.md"))
    named = set(re.findall(r"(?:^    |; |`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


def test_every_path_of_the_contributors_guide_exists() -> None:
    # Modules are named as the package, or the folder of the core's sources, has them.
    package, core = ROOT / "pepperpy" / "network", ROOT / "ext" / "pepperpy" / "network" / "_core"
    quoted = " ".join(re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())).split()
    paths = [word for word in quoted if re.fullmatch(r"[\w.*/-]+(?:/|\.(?:py|pyx|md|in|toml))|tests/[\w/]+", word)]
    assert len(paths) > 100
    assert [path for path in paths if not any(any(place.glob(path)) for place in (ROOT, package, core))] == []


@pytest.mark.parametrize(
    "page",
    [ROOT / "docs" / "architecture.md", *sorted((ROOT / "docs" / "internals").glob("*.md"))],
    ids=lambda p: p.name,
)
def test_every_name_in_the_pages_about_the_code_is_in_the_code(page: Path) -> None:
    sources = [path for folder in ("pepperpy", "ext") for path in (ROOT / folder).rglob("*")]
    known = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {path.name for path in (ROOT / "tests").iterdir()}
    for path in sources:
        known |= {path.stem, path.name, path.suffix[1:]}
        if path.suffix in (".py", ".pyx", ".pxd", ".h"):
            # Without docstrings and comments: a word of theirs is no name.
            known |= set(re.findall(r"\w+", re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())))
    text = re.sub(r"^    .*$", "", page.read_text(), flags=re.MULTILINE)
    quoted = re.findall(r"`([^`\n]+)`", text)
    words = {word for code in quoted for word in re.findall(r"[A-Za-z_]\w+(?!\*)\b", code)}
    assert words - known <= {"md", "tests"}


# ---- The map of the tests ----


def test_every_file_is_in_the_map_with_what_it_holds() -> None:
    assert tests_map.shown() == tests_map.table(), "`make map` writes the map in tests/README.md anew"


def test_every_folder_is_in_the_map() -> None:
    assert {name.partition("/")[0] for name in tests_map.lines() if "/" in name} == set(tests_map.FOLDERS) - {"."}


def test_no_file_is_too_long_to_be_read_in_a_sitting() -> None:
    lengths = {
        str(path.relative_to(tests_map.TESTS)): path.read_text().count("\n") for path in tests_map.TESTS.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}, "split by subject"


def test_what_is_to_be_run_after_a_change_exists() -> None:
    named = re.findall(r"\btests/[\w/*.]*\w", (ROOT / "CONTRIBUTING.md").read_text())
    sanitized = re.search(r"^SANITIZED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named and sanitized is not None
    named += [f"tests/{name}" for name in sanitized[1].split()]
    assert [name for name in named if not any(ROOT.glob(name))] == []


def test_a_fixed_time_that_is_slept_has_its_reason_beside_it() -> None:
    sleep = re.compile(r"\bsleep\((?:0\.\d*[1-9]\d*|[1-9][\d.]*)\)")
    found = []
    for path in tests_map.TESTS.rglob("*.py"):
        lines = path.read_text().split("\n")
        for before, line in zip(["", *lines], lines, strict=False):
            if sleep.search(line) and "#" not in before + line:
                found.append(f"{path.relative_to(tests_map.TESTS)}: {line.strip()}")
    assert found == [], "wait for an event: support/cancelling.py, until(); else say why there is none"
