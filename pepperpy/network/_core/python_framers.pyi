from collections.abc import Callable
from typing import Any, Self, final

from pepperpy.network._core.framer import Framer

class OwnFramer(Framer): ...

@final
class PythonFramer(OwnFramer):
    def __new__(cls, limit: int, decode: Callable[[bytes, int], object], no_message: object) -> Self: ...

@final
class FeedFramer(OwnFramer):
    # What `make_decoder` makes has a method `feed`, which is called as `decode` is.
    def __new__(cls, limit: int, make_decoder: Callable[[], Any], no_message: object) -> Self: ...
