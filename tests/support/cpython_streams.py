"""Runs CPython's own tests of asyncio's streams over `pepperpy.network.streams`, and prints JSON of what came of each.

`test.test_asyncio.test_streams`, as the interpreter ships it: for these tests, asyncio has our functions and classes. A
program of its own, because the tests change the policy of event loops.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import unittest

from pepperpy.network import streams

MODULE = "test.test_asyncio.test_streams"
OURS = ("StreamWriter", "open_connection", "open_unix_connection", "start_server", "start_unix_server")


class ReaderWithBuffer(streams.StreamReader):
    """Most tests that feed a reader by hand look at its `_buffer` in the end: the unread bytes."""

    def __getattr__(self, name: str) -> bytes:
        if name != "_buffer":
            raise AttributeError(name)
        if not self._core.unread:
            return b""
        unread = self._core.take_exactly(self._core.unread)
        assert unread is not None
        self._core.feed(unread)
        return unread


def main() -> None:
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError:
        json.dump({}, sys.stdout)
        return
    tests = every(unittest.defaultTestLoader.loadTestsFromModule(module))
    for name in OURS:
        setattr(asyncio, name, getattr(streams, name))
    asyncio.StreamReader = ReaderWithBuffer  # type: ignore[misc]
    result = unittest.TestResult()
    outcomes = dict.fromkeys(map(short_name, tests), "passed")
    unittest.TestSuite(tests).run(result)
    outcomes |= {short_name(test): "skipped" for test, _ in result.skipped}
    outcomes |= {short_name(test): text for test, text in result.failures + result.errors}
    json.dump(outcomes, sys.stdout)


def short_name(test: unittest.TestCase) -> str:
    return test.id().rpartition(".")[2]


def every(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for test in suite:
        found += every(test) if isinstance(test, unittest.TestSuite) else [test]
    return found


if __name__ == "__main__":
    main()
