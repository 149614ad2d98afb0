"""The same script, played on asyncio's streams and on ours, brings the same results and errors.

support/stream_scripts.py plays them. What is meant to differ is not in these scripts, but in test_streams.py.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.loops import LOOPS
from support.stream_scripts import Outcome, Script, Step
from support.tiers import by_tier

from pepperpy.network import streams

PLAY = settings(max_examples=by_tier(60, nightly=2000), suppress_health_check=list(HealthCheck))

words = st.lists(st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r\n", b";", b"a;b"]), min_size=1, max_size=12).map(
    b"".join
)
# Around asyncio's default limit, twice that, and what is written at once.
bulk = st.builds(
    lambda size, word, tail: (word * size)[:size] + tail,
    st.sampled_from([90, 8_191, 8_192, 65_535, 65_536, 65_537, 131_073]),
    st.sampled_from([b"x", b"0123456\n"]),
    st.sampled_from([b"", b"\n", b"ab"]),
)
pieces = st.one_of(words, words, bulk)
separators = st.sampled_from([b"\n", b";", b"\r\n", b"ab", bytearray(b"a;b"), b""])
if sys.version_info >= (3, 13):
    separators |= st.sampled_from([(b"\n", b"\r\n"), (b";", b"ab", b"a;b"), (), (b"a", b"")])
sizes = st.one_of(st.integers(-2, 20), st.sampled_from([100, 65_536, 131_073]))


def step(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), *arguments)


reads = st.one_of(
    step("read", sizes.filter(lambda size: size >= 0)),
    step("readline"),
    step("next_line"),
    step("readexactly", sizes),
    step("readuntil", separators),
    step("read_all", st.sampled_from([-1, -2])),
)
sends = st.one_of(step("peer_sends", pieces), step("peer_sends", pieces), step("peer_sends", words))
writes = st.one_of(
    step("write", pieces),
    step("write", words, words, words),
    step("write", words, bulk, st.builds(bytearray, words), words),
    step("writelines", st.lists(pieces, max_size=4)),
    step("drain"),
    step("receive"),
)
looks = st.one_of(
    step("at_eof"), step("is_closing"), step("can_write_eof"), step("cancel"), step("info", st.just("peername"))
)
ends = st.one_of(
    step("peer_ends"),
    step("peer_closes"),
    step("peer_resets"),
    step("close"),
    step("write_eof"),
    step("wait_closed"),
    step("drain"),
)
through_the_transport = st.one_of(
    step("limits", st.sampled_from([0, 10, 100_000])),
    step("holds"),
    step("write_by_transport", pieces),
    step("pause"),
    step("resume"),
    step("abort"),
)
usual = st.one_of(reads, reads, sends, sends, writes, looks)
scripts = st.builds(
    lambda first, last: first + last,
    st.lists(usual, max_size=20),
    st.lists(st.one_of(usual, usual, ends, ends, through_the_transport), max_size=12),
)


def played(on: ModuleType, loop_name: str, kind: str, limit: int, script: list[Step]) -> list[Outcome]:
    errors: list[object] = []
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
        outcomes = runner.run(Script(on, kind, limit).play(script))
    return [*outcomes, ("told to the loop", errors)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unix", "tcp", "tls", "start_tls"])
@pytest.mark.parametrize("loop_name", LOOPS)
@PLAY
@given(script=scripts, limit=st.sampled_from([65_536, 16, 5, 1, 200_000]))
def test_streams_do_what_asyncios_do(loop_name: str, kind: str, script: list[Step], limit: int) -> None:
    expected = played(asyncio, loop_name, kind, limit, script)
    assert played(streams, loop_name, kind, limit, script) == expected
