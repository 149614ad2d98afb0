"""Retries stay a small part of the load, whatever fails; tests of an application need not wait for them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import HTTPClient, HTTPConfig, HTTPStatusError
from pepperpy.network.backoff import Backoff, RetryBudget, no_retry_waits

RESERVE, WINDOW = RetryBudget.RESERVE, RetryBudget.WINDOW_S


def granted(budget: RetryBudget, key: str, now: float, limit: int = 100_000) -> int:
    """How many retries it allows in a row."""
    for count in range(limit):
        if not budget.take(key, now):
            return count
    return limit


# ---- How many ----


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.2, 1.0, 10.0])
@pytest.mark.parametrize("calls", [0, 1, 5, 50, 1000])
def test_a_share_of_the_calls_and_a_reserve_may_be_tried_again(ratio: float, calls: int) -> None:
    budget = RetryBudget(ratio)
    for _ in range(calls):
        budget.note_call("host", 0.0)
    assert granted(budget, "host", 0.0) == math.ceil(RESERVE + ratio * calls)
    assert not budget.take("host", WINDOW - 0.001)


def test_when_all_of_1000_calls_fail_a_fifth_and_the_reserve_is_tried_again() -> None:
    budget = RetryBudget(0.2)
    retries = 0
    for number in range(1000):
        now = number * WINDOW / 1000
        budget.note_call("host", now)
        # Each would be tried again twice.
        retries += budget.take("host", now) + budget.take("host", now)
    assert retries == 200 + RESERVE


def test_a_retry_that_is_refused_is_not_counted() -> None:
    budget = RetryBudget(1.0)
    assert granted(budget, "host", 0.0) == RESERVE
    for _ in range(100):
        assert not budget.take("host", 1.0)
    budget.note_call("host", 1.0)
    assert granted(budget, "host", 1.0) == 1


def test_each_key_has_its_own_budget() -> None:
    budget = RetryBudget(1.0)
    budget.note_call("one", 0.0)
    assert granted(budget, "one", 0.0) == RESERVE + 1
    assert granted(budget, "two", 0.0) == RESERVE


# ---- For how long ----


def test_retries_count_for_one_to_two_windows() -> None:
    for start, end in ((0.0, 2 * WINDOW), (WINDOW - 0.001, 2 * WINDOW)):
        budget = RetryBudget(0.0)
        budget.note_call("host", 0.0)
        assert granted(budget, "host", start) == RESERVE
        for now in (start, start + 0.001, WINDOW, WINDOW + 1, end - 0.001):
            assert not budget.take("host", now)
        assert granted(budget, "host", end) == RESERVE


def test_calls_count_for_one_to_two_windows() -> None:
    for now, expected in ((0.0, 100), (WINDOW - 0.001, 100), (WINDOW, 100), (2 * WINDOW - 0.001, 100), (2 * WINDOW, 0)):
        budget = RetryBudget(1.0)
        for _ in range(100):
            budget.note_call("host", 0.0)
        assert granted(budget, "host", now) == RESERVE + expected


def test_a_pause_does_not_make_old_calls_count_for_longer() -> None:
    budget = RetryBudget(1.0)
    for _ in range(100):
        budget.note_call("host", 0.0)
    budget.note_call("host", 2 * WINDOW - 1)
    # Those at 0 are more than two windows old.
    assert granted(budget, "host", 2 * WINDOW + 1) == RESERVE + 1


def test_after_a_long_pause_all_is_as_at_the_beginning() -> None:
    budget = RetryBudget(0.2)
    for _ in range(100):
        budget.note_call("host", 0.0)
    assert granted(budget, "host", 0.0) == RESERVE + 20
    assert granted(budget, "host", 1e9) == RESERVE


@given(
    st.lists(st.tuples(st.floats(0, 2.5 * WINDOW), st.booleans(), st.integers(1, 30)), max_size=40),
    st.sampled_from([0.0, 0.2, 1.0]),
)
def test_at_no_time_are_there_more_than_was_promised(steps: list[tuple[float, bool, int]], ratio: float) -> None:
    budget = RetryBudget(ratio)
    now = 0.0
    calls: list[float] = []
    retries: list[float] = []
    for pause, is_call, count in steps:
        now += pause
        for _ in range(count):
            if is_call:
                budget.note_call("host", now)
                calls.append(now)
                continue
            lately = [
                sum(at > now - length for at in events) for events, length in ((retries, WINDOW), (calls, WINDOW))
            ]
            most_retries = sum(at > now - 2 * WINDOW for at in retries)
            most_calls = sum(at > now - 2 * WINDOW for at in calls)
            if budget.take("host", now):
                # No more than the calls of the last two windows allow, at least where one window is looked at.
                assert lately[0] < RESERVE + ratio * most_calls
                retries.append(now)
            else:
                # None is refused that the calls of one window allow.
                assert most_retries >= RESERVE + ratio * lately[1]


# ---- How many keys ----


def test_the_number_of_keys_is_bounded_and_the_oldest_window_goes() -> None:
    budget = RetryBudget(0.0)
    for number in range(budget.MAX_KEYS):
        assert granted(budget, f"host {number}", number / budget.MAX_KEYS) == RESERVE
    # Its window begins anew, so that it is not the oldest any more.
    assert not budget.take("host 0", WINDOW)
    for number in range(50):
        assert granted(budget, f"new {number}", WINDOW) == RESERVE
    assert len(budget._windows) == budget.MAX_KEYS
    assert not budget.take("host 0", WINDOW)
    assert not budget.take("host 51", WINDOW)
    assert not budget.take("new 0", WINDOW)
    # Forgotten.
    assert budget.take("host 1", WINDOW)


def test_a_flood_of_keys_takes_no_more_room() -> None:
    budget = RetryBudget(0.2)
    for number in range(20 * budget.MAX_KEYS):
        (budget.note_call if number % 2 else budget.take)(f"host {number}", number / 100)
        assert len(budget._windows) <= budget.MAX_KEYS


# ---- In a client ----


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.0, 0.2])
async def test_an_outage_is_not_multiplied_by_a_client(budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow this machine is.
    monkeypatch.setattr(RetryBudget, "WINDOW_S", 1e9)
    config = HTTPConfig(retries=5, retry_delay=0, retry_budget=budget)
    calls = 300
    async with http_peer(answering(response(status="503 Service Unavailable"))) as peer, HTTPClient(config) as client:
        for _ in range(calls):
            with pytest.raises(HTTPStatusError):
                await client.get(peer.url)
        expected = RESERVE + math.ceil(budget * calls)
        assert len(peer.requests) == calls + expected
        stats = client.stats
        assert (stats.calls, stats.retries) == (calls, expected)
        # One refusal ends the retries of a call.
        assert stats.budget_refusals <= calls
        assert stats.budget_refusals > 0


# ---- Waiting, and not ----


def test_the_wait_is_drawn_from_the_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", uniform)
    backoff = Backoff(0.5, 30.0)
    assert [backoff.delay(retry) for retry in (1, 2, 3, 6, 7, 8, 100, 10**6)] == [0.5, 1, 2, 16, 30, 30, 30, 30]
    assert {low for low, _ in ranges} == {0.0}
    assert backoff.delay_after(2, 7.0) == 8.0
    assert Backoff(0.0, 30.0).delay(5) == 0.0
    assert Backoff(60.0, 30.0).delay(1) == 30.0


def waits() -> list[float]:
    backoff = Backoff(1000.0, 1000.0)
    return [*(backoff.delay(1) for _ in range(5)), backoff.delay_after(1, 1000.0)]


def test_without_waits_nothing_waits_and_afterwards_all_does_again() -> None:
    with no_retry_waits():
        assert waits() == [0.0] * 6
        with no_retry_waits():
            assert waits() == [0.0] * 6
        # An inner block does not end the outer one.
        assert waits() == [0.0] * 6
    assert any(waits()[:5])
    assert waits()[5] >= 1000.0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_without_waits_ends_with_an_exception_too(error: type[BaseException]) -> None:
    with pytest.raises(error), no_retry_waits():
        raise error
    assert any(waits())


async def test_without_waits_a_client_tries_again_at_once_and_as_often() -> None:
    config = HTTPConfig(retries=3, retry_delay=1000, max_retry_delay=1000)
    busy: Any = response(b"", "Retry-After: 900", status="503 Service Unavailable")
    async with http_peer(answering(busy, busy, busy, response())) as peer, HTTPClient(config) as client:
        with no_retry_waits():
            assert await client.get(peer.url) == "ok"
        assert len(peer.requests) == 4
