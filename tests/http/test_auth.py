"""What goes into the Authorization header is well formed and secret; one fetch serves all who wait for a token."""

from __future__ import annotations

import asyncio
import base64
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from support.token_server import TokenServer

from pepperpy.network import NetworkError, UsageError
from pepperpy.network.http import auth as auth_module
from pepperpy.network.http.auth import Auth, BasicAuth, BearerAuth, RefreshingAuth, as_auth

SECRET = "s3cr3t-t0ken"

# ---- Fixed values ----


@pytest.mark.parametrize(
    ("user", "password", "credentials"),
    [
        ("Aladdin", "open sesame", b"Aladdin:open sesame"),  # RFC 7617, section 2
        ("test", "123\u00a3", b"test:123\xc2\xa3"),  # RFC 7617, section 2.1
        ("", "", b":"),
        ("joe", "a:b:c", b"joe:a:b:c"),
        ("joe", "cafe\u0301", b"joe:caf\xc3\xa9"),
    ],
)
def test_user_and_password_are_sent_as_the_rfc_has_it(user: str, password: str, credentials: bytes) -> None:
    assert BasicAuth(user, password).fixed == "Basic " + base64.b64encode(credentials).decode()


@pytest.mark.parametrize("name", ["user", "password"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (f"{SECRET}\r\nX: y", ValueError),
        (f"{SECRET}\x00", ValueError),
        (f"{SECRET}\x7f", ValueError),
        (f"{SECRET}\udc80", ValueError),
        (SECRET.encode(), TypeError),
        (None, TypeError),
    ],
)
def test_bad_credentials_are_refused_and_not_repeated(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name} must") as caught:
        BasicAuth(**{"user": "joe", "password": "x", name: value})
    assert SECRET not in repr(caught.value)
    assert caught.value.__context__ is None


def test_a_colon_in_the_user_is_refused_because_the_password_would_begin_there() -> None:
    with pytest.raises(ValueError, match="colon") as caught:
        BasicAuth(f"{SECRET}:", "x")
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("token", ["mF_9.B5f-4.1JqM", "abc+/~==", "0"])
def test_a_bearer_token_is_sent_as_it_is(token: str) -> None:
    assert BearerAuth(token).fixed == f"Bearer {token}"


async def test_nothing_can_renew_a_value_that_never_changes() -> None:
    for auth in (BasicAuth("joe", "x"), BearerAuth("x")):
        assert await auth.header() == auth.fixed
        assert not auth.refused(await auth.header())
        await auth.close()


@pytest.mark.parametrize("token", ["", " ", " a", "a ", "a\n", "a\r\nX: y", "a\x1b", "a\x7f", "a\x00", "\ud800"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token must be of characters that a header can have .*RFC 9110") as caught:
        BearerAuth(token.replace("a", SECRET))
    assert SECRET not in repr(caught.value)


def test_a_token_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^token must be a str, not bytes$"):
        BearerAuth(SECRET.encode())  # type: ignore[arg-type]


def test_a_fixed_auth_is_a_value_that_travels_and_shows_nothing() -> None:
    for auth, other in ((BasicAuth("joe", SECRET), BasicAuth("joe", "x")), (BearerAuth(SECRET), BearerAuth("x"))):
        assert repr(auth) == str(auth) == f"{type(auth).__name__}(***)"
        copy = pickle.loads(pickle.dumps(auth))
        assert copy == auth
        assert hash(copy) == hash(auth)
        assert auth != other
        assert auth != auth.fixed
    assert repr(RefreshingAuth(lambda: SECRET)) == "RefreshingAuth(***)"


async def test_an_auth_of_ones_own_sets_a_value_or_overrides_header() -> None:
    class Fixed(Auth):
        fixed = "Digest x"

    class Nothing(Auth):
        pass

    assert await Fixed().header() == "Digest x"
    assert not Fixed().refused("Digest x")
    assert repr(Fixed()) == "Fixed(***)"
    with pytest.raises(NotImplementedError, match="Nothing must set `fixed` or override"):
        await Nothing().header()
    await Nothing().close()


def test_what_auth_may_be() -> None:
    auth = BearerAuth("x")
    assert as_auth(None) is None
    assert as_auth(auth) is auth
    assert as_auth(("joe", "x")) == BasicAuth("joe", "x")
    assert isinstance(as_auth(lambda: "x"), RefreshingAuth)


@pytest.mark.parametrize("value", [SECRET, 5, ["joe", SECRET], ("joe", SECRET, "utf-8"), (SECRET,), BasicAuth])
def test_what_auth_may_not_be_is_refused_and_not_repeated(value: Any) -> None:
    kind = value if isinstance(value, type) else type(value)
    with pytest.raises(TypeError, match="auth must be an Auth") as caught:
        as_auth(value)
    assert repr(kind) in str(caught.value)
    assert SECRET not in repr(caught.value)


# ---- Fetching ----


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"fetch": SECRET}, TypeError, "fetch must be a callable, not str"),
        ({"scheme": b"x"}, TypeError, "scheme must be a str"),
        ({"scheme": "a b"}, ValueError, "scheme must be a token"),
        ({"scheme": "a\r\n"}, ValueError, "scheme must be a token"),
        ({"leeway": -1}, ValueError, "leeway must be 0 or more"),
        ({"leeway": math.inf}, ValueError, "leeway must be"),
        ({"leeway": "1"}, TypeError, "leeway must be a number"),
    ],
)
def test_bad_arguments_of_a_refreshing_auth_are_named(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        RefreshingAuth(**{"fetch": lambda: "x"} | arguments)
    assert SECRET not in repr(caught.value)


async def _coroutine() -> str:
    return "x"


async def _with_lifetime() -> tuple[str, float]:
    return "x", 3600


class _CallableObject:
    async def __call__(self) -> tuple[str, None]:
        return "x", None


async def test_a_token_comes_from_a_plain_or_a_coroutine_function_with_or_without_a_lifetime() -> None:
    fetches: list[Any] = [lambda: "x", lambda: ("x", 60), _coroutine, _with_lifetime, lambda: _coroutine()]
    for fetch in [*fetches, _CallableObject()]:
        auth = RefreshingAuth(fetch, scheme="Token")
        assert auth.fixed is None
        assert await auth.header() == "Token x"
        # Without suspending, once it is there.
        with pytest.raises(StopIteration) as caught:
            auth.header().send(None)
        assert caught.value.value == "Token x"


async def test_a_hundred_tasks_wait_for_one_fetch() -> None:
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    tasks = await fetch.waiting(auth, 100)
    fetch.open.set()
    assert await asyncio.gather(*tasks) == ["Bearer token-1"] * 100
    assert await auth.header() == "Bearer token-1"
    assert fetch.started == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 1000.0
    monkeypatch.setattr(auth_module, "monotonic", lambda: now)

    def set_clock(seconds: float) -> None:
        nonlocal now
        now = 1000.0 + seconds

    return set_clock


@pytest.mark.parametrize(
    ("lifetime", "leeway", "renewed_at"),
    [(3600, 30, 3570), (3600, 0, 3600), (40, 30, 20), (1e-6, 30, 0.5e-6)],
)
async def test_a_token_is_renewed_before_its_lifetime_ends(
    clock: Callable[[float], None], lifetime: float, leeway: float, renewed_at: float
) -> None:
    fetch = TokenServer(lifetime)
    auth = RefreshingAuth(fetch, leeway=leeway)
    tasks = await fetch.waiting(auth, 1)
    # The lifetime counts from the beginning of the fetch.
    clock(renewed_at * 0.999)
    fetch.open.set()
    assert await asyncio.gather(*tasks) == ["Bearer token-1"]
    assert await auth.header() == "Bearer token-1"
    clock(renewed_at * 1.001)
    assert await auth.header() == "Bearer token-2"


async def test_a_token_of_unknown_lifetime_lasts_until_it_is_refused(clock: Callable[[float], None]) -> None:
    fetch = TokenServer(None)
    fetch.open.set()
    auth = RefreshingAuth(fetch)
    await auth.header()
    clock(1e9)
    assert await auth.header() == "Bearer token-1"
    assert auth.refused("Bearer token-1")
    assert await auth.header() == "Bearer token-2"


async def test_a_late_401_for_an_old_token_causes_no_other_fetch() -> None:
    fetch = TokenServer()
    fetch.open.set()
    auth = RefreshingAuth(fetch)
    old = await auth.header()
    # Many requests were sent with it, and their answers come one by one.
    for _ in range(50):
        assert auth.refused(old)
        assert await auth.header() == "Bearer token-2"
    assert fetch.started == 2


async def test_a_401_while_a_new_token_is_fetched_does_not_cause_a_second_fetch() -> None:
    fetch = TokenServer()
    fetch.open.set()
    auth = RefreshingAuth(fetch)
    old = await auth.header()
    fetch.open.clear()
    assert auth.refused(old)
    tasks = await fetch.waiting(auth, 2)
    assert auth.refused(old)
    tasks += [asyncio.create_task(auth.header())]
    fetch.open.set()
    assert await asyncio.gather(*tasks) == ["Bearer token-2"] * 3
    assert fetch.started == 2


# ---- Failing ----


async def test_a_failed_fetch_fails_each_who_waits_with_an_error_of_its_own_and_the_next_tries_again() -> None:
    fetch = TokenServer()
    fetch.error = OSError(f"no route to https://auth.example/?client_secret={SECRET}")
    auth = RefreshingAuth(fetch)
    tasks = await fetch.waiting(auth, 10)
    fetch.open.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert fetch.started == 1
    assert len({id(error) for error in errors}) == 10
    for error in errors:
        assert type(error) is NetworkError
        assert error.__cause__ is fetch.error
        assert error.details == {"phase": "auth"}
        assert str(error) == "no token could be fetched: OSError"
    fetch.error = None
    assert await auth.header() == "Bearer token-2"


async def test_what_is_no_token_is_refused_and_not_repeated() -> None:
    no_tokens: list[tuple[Any, type[Exception]]] = [
        (None, TypeError),
        (SECRET.encode(), TypeError),
        ((SECRET, "3600"), TypeError),
        ((SECRET, True), TypeError),
        ((SECRET, 60, 60), TypeError),
        ((SECRET, 0), ValueError),
        ((SECRET, -5), ValueError),
        ((SECRET, math.nan), ValueError),
        (f"{SECRET}\r\nX: y", ValueError),
        (f"{SECRET} ", ValueError),
        ("", ValueError),
    ]
    for given, cause in no_tokens:
        auth = RefreshingAuth(lambda given=given: given)
        with pytest.raises(NetworkError) as caught:
            await auth.header()
        assert type(caught.value.__cause__) is cause, given
        assert "fetch" in str(caught.value.__cause__)
        assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)


async def test_a_fetch_that_is_cancelled_from_within_is_an_error_and_cancels_nobody() -> None:
    fetch = TokenServer()
    fetch.error = asyncio.CancelledError()
    auth = RefreshingAuth(fetch)
    tasks = await fetch.waiting(auth, 3)
    fetch.open.set()
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert type(error) is NetworkError
        assert isinstance(error.__cause__, asyncio.CancelledError)
        assert "cancelled" in str(error)
    fetch.error = None
    assert await auth.header() == "Bearer token-2"


async def test_a_fetch_task_that_others_cancel_before_it_has_begun_is_an_error_too() -> None:
    # An eager task has always begun.
    asyncio.get_running_loop().set_task_factory(None)
    fetch = TokenServer()
    auth = RefreshingAuth(fetch)
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(auth.header())
    await asyncio.sleep(0)
    (task,) = asyncio.all_tasks() - before - {waiting}
    task.cancel()
    with pytest.raises(NetworkError, match="cancelled"):
        await waiting
    assert fetch.started == 0
    fetch.open.set()
    assert await auth.header() == "Bearer token-1"


async def test_a_fetch_that_asks_for_its_own_token_is_told_instead_of_waiting_for_ever() -> None:
    async def fetch() -> str:
        return await auth.header()

    auth = RefreshingAuth(fetch)
    with pytest.raises(NetworkError) as caught:
        await auth.header()
    assert isinstance(caught.value.__cause__, UsageError)
