class Framer:
    """Where one message ends in a stream of bytes. Knows no connection; consumes nothing."""

    def decode(self, data: bytes, start: int) -> tuple[bytes, int] | int: ...
