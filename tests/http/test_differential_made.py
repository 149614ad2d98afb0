"""Answers that hypothesis makes from the grammar, in any pieces: the same comes of each through every transport.

Every day the same ones (tests/support/tiers.py).
"""

from __future__ import annotations

import asyncio

import pytest
from conftest import LOOPS
from hypothesis import HealthCheck, given, settings
from support.behaviours.model import Behaviour
from support.http_bare import play_bare
from support.http_differences import disagreement
from support.http_lab import TRANSPORTS, lab
from support.http_made import made
from support.tiers import by_tier

MANY = settings(max_examples=by_tier(100, nightly=5000), suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_transport_makes_of_it_what_the_grammar_says(transport: str, loop_name: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        opened = lab(transport)
        laboratory = runner.run(opened.__aenter__())

        @MANY
        @given(made())
        def play(answer: tuple[Behaviour, tuple[int, ...]]) -> None:
            behaviour, cuts = answer
            verdict = runner.run(laboratory.play(behaviour, cuts)).verdict(behaviour)
            assert not disagreement(transport, behaviour, cuts, verdict)

        try:
            play()
        finally:
            runner.run(opened.__aexit__(None, None, None))


@pytest.mark.slow
@MANY
@given(made(coded=False))
def test_the_parser_alone_makes_of_it_what_the_grammar_says(answer: tuple[Behaviour, tuple[int, ...]]) -> None:
    behaviour, cuts = answer
    assert not disagreement("httptools", behaviour, cuts, play_bare(behaviour, cuts).verdict(behaviour))
