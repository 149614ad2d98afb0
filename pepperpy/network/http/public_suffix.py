"""Which domains belong to nobody, as `com` and `co.uk`: no cookie may be set for all of one (RFC 6265, section 5.3)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from pepperpy.network.http.cookie_jar import has_no_dot


def is_public_suffix(domain: str) -> bool:
    """Whether nobody may set cookies for all of `domain`, which is in lower case.

    By the Public Suffix List of browsers, if `publicsuffixlist` is installed. Reading it takes some 15 ms, once, when
    the first cookie for a whole domain comes. Otherwise it is a domain without a dot.
    """
    return _rule()(domain)


@cache
def _rule() -> Callable[[str], bool]:
    try:
        library: Any = importlib.import_module("publicsuffixlist")
    except ImportError:
        return has_no_dot
    # Its names in their own letters only: encoding them all takes twice as long as reading them.
    suffixes = library.PublicSuffixList(accept_encoded_idn=False)

    def is_listed(domain: str) -> bool:
        try:
            is_public: bool = suffixes.is_public(domain.encode().decode("idna") if "xn--" in domain else domain)
        except UnicodeError:
            return True  # no name that anybody can own
        return is_public

    return is_listed
