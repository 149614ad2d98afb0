from typing import Self, final

from pepperpy.network._core.framer import Framer

@final
class LengthFramer(Framer):
    def __new__(cls, limit: int, width: int, little: bool, offset: int, adjust: int, header: int = -1) -> Self: ...

@final
class FixedFramer(Framer):
    def __new__(cls, limit: int) -> Self: ...

@final
class SeparatorFramer(Framer):
    def __new__(
        cls, limit: int, separators: tuple[bytes, ...], keep: bool, skip_blank: bool, any_newline: bool = False
    ) -> Self: ...

@final
class NetstringFramer(Framer):
    def __new__(cls, limit: int) -> Self: ...
