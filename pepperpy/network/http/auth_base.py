"""What all kinds of `Auth` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pepperpy.network.http.checks import check_headers

if TYPE_CHECKING:
    from pepperpy.network.http.middleware_request import HTTPRequest
    from pepperpy.network.http.response import HTTPResponse
else:
    # These modules import this one. So typing.get_type_hints() knows no more of them.
    HTTPRequest = HTTPResponse = Any


class Auth:
    """What makes a request an authorized one. Subclasses set `fixed`, or override `header()` or `apply()`.

    Attributes:
        fixed: The Authorization header, if it never changes; else None, and `apply()` is called for every request.
        max_answers: How often a call is sent again because of a 401.
    """

    fixed: str | None = None
    max_answers: int = 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    async def header(self) -> str:
        """The value of the Authorization header for the next request, scheme included."""
        if self.fixed is None:
            raise NotImplementedError(f"{type(self).__name__} must set `fixed` or override `header()`")
        return self.fixed

    async def apply(self, request: HTTPRequest) -> None:
        """Authorize a request: set its Authorization header to `header()`, or change it as an override does.

        Called for each attempt, and for each redirect within the origin. What it adds goes to no other origin. All
        else that is sent is known: `request` has the final URL, the headers with cookies, and the body or its digest.
        """
        value = await self.header()
        if not isinstance(value, str):
            raise TypeError(f"auth must give a str as the header, not {type(value).__name__}")
        check_headers("auth", {"Authorization": value}, none=False)
        request.headers["Authorization"] = value

    def challenged(self, request: HTTPRequest, response: HTTPResponse) -> bool:
        """Called when the server answered 401, up to `max_answers` times a call. Returns whether to send again.

        Then `apply()` is called again.

        Args:
            request: What was sent. Its `auth_state` is there for the next `apply()` of the same call.
            response: Its headers have the challenge. Its body is not read.
        """
        return self.refused(request.headers.get("Authorization", ""))

    def refused(self, header: str) -> bool:
        """Called when the server answered 401 to `header`. Returns whether to send the request again with a new one."""
        return False

    def informed(self, request: HTTPRequest, response: HTTPResponse) -> None:
        """Called for an answer other than 401 whose headers have Authentication-Info (RFC 9110, section 11.6.3).

        Args:
            request: What was sent.
            response: The answer. Its body is not read.
        """

    async def close(self) -> None:
        """End what is under way; `header()` works again afterwards. No client calls it: several may share an `Auth`."""
