"""A test that fails or does not end fails alone, or ends the run: no run of the tests hangs (support/watchdog.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# Each test runs pytest.
pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]

# Has the time for what a run does once, before its first test.
FIRST = """
import pytest

@pytest.mark.timeout(45)
def test_first():
    pass
"""
ENDED_BY_THEMSELVES = """
import asyncio, contextlib, socket, time

kept = []

async def served():
    async def serve(reader, writer):
        await asyncio.Event().wait()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await asyncio.sleep(0)
    return server, writer

async def test_fails_with_a_server_and_a_connection_left_open():
    kept.append(await served())
    raise ZeroDivisionError

async def test_fails_in_the_block_of_a_server_whose_connection_is_open():
    server, writer = await served()
    async with server:
        raise ZeroDivisionError

async def test_fails_with_a_socket_left_open():
    left = socket.create_server(("127.0.0.1", 0))
    raise ZeroDivisionError

async def test_fails_with_a_task_that_needs_two_cancellations():
    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()
    kept.append(asyncio.create_task(stubborn()))
    await asyncio.sleep(0)
    raise ZeroDivisionError

async def test_waits_for_ever():
    await asyncio.Event().wait()

async def test_waits_for_ever_while_its_loop_is_busy_with_callbacks():
    loop = asyncio.get_running_loop()
    def again():
        time.sleep(0.001)  # busy
        loop.call_soon(again)
    again()
    await asyncio.Event().wait()

async def test_blocks_its_loop():
    time.sleep(60)  # longer than any limit

def test_blocks():
    time.sleep(60)  # longer than any limit

@pytest.mark.timeout(30)
async def test_is_good():
    first, second = socket.socketpair()
    with first, second:
        first.setblocking(False)
        second.send(b"x")
        assert await asyncio.get_running_loop().sock_recv(first, 1) == b"x"
"""

ENDS_THE_RUN = {
    "a loop that is not closed, because a task does not end": (
        """
        import asyncio
        async def test_it():
            async def immortal():
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        pass
            task = asyncio.create_task(immortal())
            await asyncio.sleep(0)
            raise ZeroDivisionError("of this test")
        """,
        "ZeroDivisionError: of this test",
    ),
    "code in C that heeds no signal and keeps the GIL": (
        """
        import collections, itertools
        def test_it():
            collections.deque(itertools.repeat(None), maxlen=0)
        """,
        "in test_it",
    ),
    "a coroutine that does the same": (
        """
        import collections, itertools
        async def test_it():
            collections.deque(itertools.repeat(None), maxlen=0)
        """,
        "in test_it",
    ),
    "a test that survives whatever is raised in it": (
        """
        import time
        def test_it():
            while True:
                try:
                    time.sleep(60)  # longer than any limit
                except BaseException:
                    pass
        """,
        "in test_it",
    ),
}


def run(folder: Path, text: str, *, limit: float, grace: float) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (folder / "test_bad.py").write_text(FIRST + textwrap.dedent(text))
    options = ["-q", "-p", "no:cacheprovider", "-c", TESTS.parent / "pyproject.toml", "--rootdir", folder]
    options += ["-o", f"timeout={limit}", "-o", f"grace={grace}", "-W", "ignore"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, folder / "test_bad.py"],
        env=os.environ | {"PYTHONPATH": str(TESTS), "NIGHTLY": "0", "LOOPS": "asyncio-debug,uvloop"},
        capture_output=True,
        text=True,
        timeout=50,  # what hangs after all fails this test
    )


def test_a_test_that_fails_or_waits_for_ever_fails_alone_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, ENDED_BY_THEMSELVES, limit=0.5, grace=30)
    # Seven on both loops, and one that needs none; the good one on both, and the first.
    assert re.search(r"^15 failed, 3 passed in", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert done.stdout.count("the test is not done after 0.5 s") >= 2


@pytest.mark.parametrize("name", ENDS_THE_RUN)
def test_what_cannot_be_ended_otherwise_ends_the_run_and_says_where(name: str, tmp_path: Path) -> None:
    text, words = ENDS_THE_RUN[name]
    # What failed is told after half of the grace.
    limit, grace = (2.0, 3.0) if "ZeroDivisionError" in words else (0.5, 1.5)
    done = run(tmp_path, text, limit=limit, grace=grace)
    assert done.returncode == 1
    assert "most recent call first" in done.stderr and "passed" not in done.stdout
    assert words in done.stderr
