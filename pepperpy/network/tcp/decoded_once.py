"""Decodes a peer's certificate once, not in each handshake of aiofastnet.

OpenSSL checks the certificate in each handshake. After that aiofastnet decodes it for `get_extra_info("peercert")`, and
CPython decodes only that of a connection of its own, or of a file. So aiofastnet (1.2) writes a file each time, and
OpenSSL looks through all its decoders to read it: 1.9 of the 8.2 million instructions of a connection over TLS that is
made, used once and closed, and seven system calls.
"""

from __future__ import annotations

import importlib
import ssl
from typing import Any

# Certificates whose content is kept; then all are dropped. Arbitrary: some 300 KB.
MAX_KEPT = 64

_kept: dict[bytes, dict[str, Any]] = {}  # by the certificate in DER


def decode_once(aiofastnet: Any) -> None:
    """Let its TLS keep what it has decoded. All its users are shown the same as before.

    Only version 1.2 is known from the inside. Any other stays as it is.
    """
    if not aiofastnet.__version__.startswith("1.2."):
        return
    transports: Any = importlib.import_module("aiofastnet.ssl_transport")
    direct: Any = transports.SSLEngineDirect
    if direct is None:
        # Python has OpenSSL built in. The connections are CPython's own then, and need no file.
        return

    class Engine(direct):  # type: ignore[misc]
        def getpeercert(self, binary_form: bool = False) -> Any:
            if binary_form or self.context.verify_mode == ssl.CERT_NONE:
                return direct.getpeercert(self, binary_form)
            certificate = direct.getpeercert(self, True)
            if certificate is None:
                return None
            decoded = _kept.get(certificate)
            if decoded is None:
                decoded = direct.getpeercert(self)
                if len(_kept) >= MAX_KEPT:
                    _kept.clear()
                _kept[certificate] = decoded
            # A copy, because it is the caller's. Its values are strings, numbers and tuples of these.
            return dict(decoded)

    transports.SSLEngineDirect = Engine
