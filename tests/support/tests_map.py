"""The map of the tests in tests/README.md: the first line of each file's docstring. Run it to write the map anew."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS / "README.md"
FOLDERS = {
    ".": "What is for all tests.",
    "ground": "What lies below all clients: settings, errors, TLS contexts, lookups, timers, JSON.",
    "core": "The compiled core: how bytes are received and sent, and how a connection ends.",
    "messages": "Framed messages and the codecs.",
    "requests": "Requests with replies, and pipelines.",
    "tcp": "The TCP client: connecting, TLS, proxies, reconnecting, the heartbeat.",
    "pool": "The pool of TCP connections.",
    "http": "The HTTP client.",
    "streams": "asyncio's streams over the core: CPython's own tests, random scripts on both.",
    "testing": "What the package offers for tests of users: mocks, scripted peers, faults.",
    "command": "The command line, run as a program.",
    "house": "The repository: storeys, documentation, examples, the package, this map.",
    "types": "What type checkers have to find; `make check` runs them. No tests.",
    "support": "What tests share: servers, peers, faults, cancellations. No tests.",
}


def lines() -> dict[str, str]:
    """By path below tests/: the first line of the docstring."""
    found = {}
    for path in sorted(TESTS.rglob("*.py")):
        if path.name != "__init__.py":
            text = path.read_text()
            assert text.startswith('"""'), f"{path} needs a docstring: its first line goes into the map"
            found[str(path.relative_to(TESTS))] = text[3:].partition("\n")[0].partition('"""')[0]
    return found


def table() -> str:
    rows = ["| file | what it holds |", "|---|---|"]
    files = lines()
    for folder, what in FOLDERS.items():
        if folder != ".":
            rows.append(f"| **{folder}/** | **{what}** |")
        for name, line in files.items():
            if name.partition("/")[0] == folder or (folder == "." and "/" not in name):
                rows.append(f"| `{name}` | {line.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def shown() -> str:
    """The table as tests/README.md has it now."""
    text = README.read_text()
    return text[text.index("| file | ") :]


if __name__ == "__main__":
    README.write_text(README.read_text().removesuffix(shown()) + table())
