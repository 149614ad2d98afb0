from pepperpy.network._core.framer import Framer

class LengthFramer(Framer):
    def __init__(self, limit: int, width: int, little: bool, offset: int, adjust: int) -> None: ...

class FixedFramer(Framer):
    def __init__(self, limit: int) -> None: ...

class SeparatorFramer(Framer):
    def __init__(
        self, limit: int, separators: tuple[bytes, ...], keep: bool, skip_blank: bool, any_newline: bool = False
    ) -> None: ...

class NetstringFramer(Framer):
    def __init__(self, limit: int) -> None: ...
