from collections.abc import Callable
from typing import Any

from pepperpy.network._core.framer import Framer

class PythonFramer(Framer):
    def __init__(self, limit: int, decode: Callable[[bytes, int], object], no_message: object) -> None: ...

class FeedFramer(Framer):
    # What `make_decoder` makes has a method `feed`, which is called as `decode` is.
    def __init__(self, limit: int, make_decoder: Callable[[], Any], no_message: object) -> None: ...
