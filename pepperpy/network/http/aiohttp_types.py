"""The types of aiohttp in our API, without an import of aiohttp: in annotations, and as those of arguments.

That import takes longer than all the others of an `HTTPClient` together, and only `HTTPConfig(transport="aiohttp")` and
`HTTPClient.session` need it. A program that has no aiohttp imported has no value of its types either.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pepperpy.network.lazy_types import LazyModule

if TYPE_CHECKING:
    import aiohttp as aiohttp
    from typing_extensions import TypeIs
else:
    # For annotations: whatever else uses it imports aiohttp, too.
    aiohttp = LazyModule("aiohttp")


def is_client_timeout(value: object) -> TypeIs[aiohttp.ClientTimeout]:
    return _is("ClientTimeout", value)


def is_form_data(value: object) -> TypeIs[aiohttp.FormData]:
    return _is("FormData", value)


def is_stream_reader(value: object) -> TypeIs[aiohttp.StreamReader]:
    return _is("StreamReader", value)


def _is(name: str, value: object) -> bool:
    kind = getattr(sys.modules.get("aiohttp"), name, None)
    return kind is not None and isinstance(value, kind)
