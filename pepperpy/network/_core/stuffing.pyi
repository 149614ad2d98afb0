from typing import Self, final

from pepperpy.network._core.framer import Framer

class StuffingFramer(Framer): ...

@final
class SLIPFramer(StuffingFramer):
    def __new__(cls, limit: int) -> Self: ...

@final
class COBSFramer(StuffingFramer):
    def __new__(cls, limit: int) -> Self: ...

def cobs_encode(data: bytes) -> bytes: ...
