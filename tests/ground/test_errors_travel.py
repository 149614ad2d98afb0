"""Errors are copied and pickled whole, whatever they hold: a worker's report reaches whoever waits for it."""

from __future__ import annotations

import copy
import errno
import gc
import pickle
import ssl
import threading
from typing import Any

import pytest
from support.allocations import IMPOSSIBLE, _testcapi

import pepperpy.network as network
from pepperpy.network import errors

ERRORS = [getattr(errors, name) for name in errors.__all__]


class TwoArguments(Exception):
    """Can be pickled, but not unpickled: its arguments are not in `args`."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class NoText(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))
def test_without_memory_an_error_is_not_made_and_the_interpreter_goes_on() -> None:
    """CPython 3.12 and 3.13 crash a bit later where there is no memory for a generator expression."""
    for cause in (OSError(errno.ECONNRESET, "reset"), ssl.SSLError(1, "wrong")):
        kind = errors.also_as(network.ConnectionLostError, cause)
        for _ in range(3):
            for number in range(80):
                gc.disable()  # see support/allocations.py
                _testcapi.set_nomemory(number, number + 1)
                try:
                    copy.copy(kind("lost", {}, cause))
                except MemoryError:
                    pass
                finally:
                    _testcapi.remove_mem_hooks()
                    gc.enable()
        assert copy.copy(kind("lost", {}, cause)).errno == cause.errno  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_travels_whatever_its_cause_is(kind: Any) -> None:
    local = type("Local", (ValueError,), {})
    causes = [
        TwoArguments(1, 2),
        local("words of it"),
        NoText(threading.Lock()),
        ExceptionGroup("several", [TwoArguments(3, 4)]),
    ]
    shown = ["TwoArguments: 1 and 2", "Local: words of it", "NoText: (str() of it raised ZeroDivisionError)", "several"]
    for cause, text in zip(causes, shown, strict=True):
        error = kind("words", {"status": 500, "lock": threading.Lock()}, cause)
        for same in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
            assert type(same) is kind and str(same) == "words"
            assert isinstance(same.__cause__, errors.PickledCause) and text in str(same.__cause__)
            assert same.details["status"] == 500 and "lock" in same.details["lock"]
        same = copy.copy(error)
        assert type(same) is kind and same.__cause__ is cause
        assert same.details == error.details and same.details is not error.details


def test_a_long_chain_and_a_circle_of_causes_travel() -> None:
    error: network.NetworkError = network.ConnectError("0", None, TwoArguments(1, 2))
    for number in range(1, 40):
        error = network.TLSError(str(number), None, error)
    same: Any = pickle.loads(pickle.dumps(error))
    for number in range(39, -1, -1):
        assert str(same) == str(number)
        same = same.__cause__
    assert "1 and 2" in str(same)
    first, second = network.ConnectError("first"), network.ProxyError("second")
    first.__cause__, second.__cause__ = second, first
    same = pickle.loads(pickle.dumps(first))
    assert str(same.__cause__) == "second" and same.__cause__.__cause__ is same


def test_what_an_error_was_given_later_travels_too() -> None:
    error: Any = network.ConnectError("words", None, OSError(13, "denied", "/a/file"))
    error.errno = 111
    error.add_note("a note")
    same = pickle.loads(pickle.dumps(error))
    assert (same.errno, same.strerror, same.filename, same.__notes__) == (111, "denied", "/a/file", ["a note"])


def test_an_error_can_be_a_built_in_one_that_its_class_is_not() -> None:
    cause = FileNotFoundError(2, "No such file", "/a/file")
    error: Any = errors.also(network.InvalidRequestError, type(cause))("words", {"a": 1}, cause)
    assert isinstance(error, FileNotFoundError) and isinstance(error, ValueError)
    assert repr(error) == "InvalidRequestError('words')"
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(same) is type(error) and isinstance(same, network.InvalidRequestError)
        assert (same.errno, same.filename, same.details, repr(same.__cause__)) == (2, "/a/file", {"a": 1}, repr(cause))
    assert errors.also(network.ConnectError, ConnectionError) is network.ConnectError
