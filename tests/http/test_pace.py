"""The arithmetic of a rate limit, in plain numbers: bursts, intervals, places that are given back, late timers."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiers import by_tier

from pepperpy.network.http.rate_limit import Pace, RateLimit
from pepperpy.network.http.rate_limiter import RateLimiter

# ---- The limit ----


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("rate", "5", TypeError),
        ("rate", True, TypeError),
        ("rate", None, TypeError),
        ("rate", 0, ValueError),
        ("rate", -1.0, ValueError),
        ("rate", math.inf, ValueError),
        ("rate", math.nan, ValueError),
        ("rate", 10**400, ValueError),
        ("rate", 5e-324, ValueError),
        ("burst", 1.0, TypeError),
        ("burst", True, TypeError),
        ("burst", 0, ValueError),
        ("burst", 10**30, ValueError),
        ("per", 1, TypeError),
        ("per", "user", ValueError),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{field} ") as caught:
        RateLimit(**{"rate": 1.0, field: value})
    assert repr(value) in str(caught.value)


def test_a_limit_is_a_value_and_a_limiter_wants_one() -> None:
    limit = RateLimit(2.5, burst=3, per="host")
    assert pickle.loads(pickle.dumps(limit)) == limit == RateLimit(2.5, 3, "host") != RateLimit(2.5)
    with pytest.raises(TypeError, match="limit must be a RateLimit, not 5"):
        RateLimiter(5)  # type: ignore[arg-type]


# ---- The pace ----


def leave_at_once(pace: Pace, now: float, at_most: int = 1000) -> int:
    count = 0
    while count < at_most and pace.turn(now) <= now:
        pace.take(now, now)
        count += 1
    return count


@pytest.mark.parametrize("now", [0.0, 1234.5678, 1e9])
def test_a_burst_leaves_at_once_and_the_others_one_interval_apart(now: float) -> None:
    pace = Pace(RateLimit(10, burst=7))
    assert leave_at_once(pace, now) == 7
    assert pace.turn(now) == pytest.approx(now + 0.1, abs=1e-5)
    assert [pace.turn(now, ahead) - now for ahead in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-5)
    assert leave_at_once(pace, now + 0.1) == 1
    # What flows in during a quiet time is no more than one burst.
    assert leave_at_once(pace, now + 0.4) == 3
    assert leave_at_once(pace, now + 1000) == 7


def test_who_may_not_leave_before_a_time_has_a_turn_after_it() -> None:
    pace = Pace(RateLimit(10, burst=2))
    assert [pace.turn(5.0, ahead) for ahead in range(4)] == pytest.approx([5.0, 5.0, 5.1, 5.2], abs=1e-5)


def test_a_place_given_back_at_once_is_whole_again_and_later_only_the_rest_of_it() -> None:
    pace = Pace(RateLimit(1))
    pace.give_back(pace.take(10.0, 10.0), 10.0)
    assert pace.turn(10.0) == 10.0
    pace.give_back(pace.take(10.0, 10.0), 10.75)
    assert pace.turn(10.75) == pytest.approx(10.75, abs=1e-5)
    taken = pace.take(20.0, 20.0)
    pace.give_back(taken, 30.0)
    assert pace.turn(20.5) == pytest.approx(21.0, abs=1e-5)


def test_late_timers_do_not_slow_the_pace_and_a_blocked_loop_does_not_send_a_burst() -> None:
    pace = Pace(RateLimit(100))
    assert leave_at_once(pace, 0.0) == 1
    left, late = 0, 0.0
    while left < 100:
        late = pace.turn(0.0) + 0.004
        pace.take(late, since=0.0)
        left += 1
    assert late == pytest.approx(1.004, abs=0.001)
    blocked = late + 5.0
    while pace.turn(blocked) <= blocked:
        pace.take(blocked, since=0.0)
        left += 1
    # 0.05 s are made up for.
    assert left == 106
    # Who has not waited has nothing to make up for.
    pace = Pace(RateLimit(100))
    assert leave_at_once(pace, 10.0) == 1


@settings(max_examples=by_tier(300, nightly=15000))
@given(
    st.floats(0.1, 50),
    st.integers(1, 5),
    st.lists(
        st.tuples(st.floats(0, 0.5), st.sampled_from(["leave", "leave", "leave", "hold", "give back"])), max_size=60
    ),
)
def test_whatever_is_given_back_no_more_than_the_limit_ever_leaves(
    rate: float, burst: int, steps: list[tuple[float, str]]
) -> None:
    pace = Pace(RateLimit(rate, burst))
    now, left, held = 100.0, [], []
    for pause, step in steps:
        now += pause
        if step == "give back":
            if held:
                pace.give_back(held.pop(), now)
        elif pace.turn(now) <= now:
            taken = pace.take(now, now)
            if step == "leave":
                left.append(now)
            else:
                held.append(taken)
    for first, start_time in enumerate(left):
        for last, end_time in enumerate(left[first:], first):
            assert last - first + 1 <= burst + rate * (end_time - start_time) + 1e-3
