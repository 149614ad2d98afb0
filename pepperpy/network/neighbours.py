"""Whose the name `pepperpy` is: nobody's, as long as no other distribution installs a `pepperpy/__init__.py`.

This distribution installs none, so that others may put a package of theirs beside `pepperpy.network`. Three on PyPI do
more and own the whole name (docs/neighbours.md).
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit


class NamespaceOwner(NamedTuple):
    """The distribution whose `pepperpy/__init__.py` Python runs before it imports `pepperpy.network`.

    Attributes:
        name: Its name, as `pip uninstall` takes it; empty if no installed distribution lists the file.
        version: Its version; empty if no distribution lists the file.
        file: The path of that `__init__.py`.
    """

    name: str
    version: str
    file: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.file})" if self.name else f"no installed distribution ({self.file})"


def namespace_owner() -> NamespaceOwner | None:
    """Who owns `pepperpy` in this process; None if it is a namespace, which all distributions share.

    It reads the metadata of all installed distributions: some milliseconds for each hundred.
    """
    file = getattr(sys.modules["pepperpy"], "__file__", None)
    return None if file is None else owner_of(Path(file))


def owner_of(init: Path) -> NamespaceOwner:
    """Which distribution installed `init`, a `pepperpy/__init__.py`.

    If several list this file, it is the one with this content: pip lets the last one overwrite the others.
    """
    listing = [found for found in importlib.metadata.distributions() if _installs(found, init)]
    # The sort is stable, and False comes first.
    listing.sort(key=lambda found: not _has_content_of(found, init))
    if not listing:
        return NamespaceOwner("", "", str(init))
    return NamespaceOwner(listing[0].metadata["Name"], listing[0].version, str(init))


_LISTED = "pepperpy/__init__.py"


def _installs(distribution: importlib.metadata.Distribution, init: Path) -> bool:
    if f"{_LISTED}," in (distribution.read_text("RECORD") or ""):
        return Path(str(distribution.locate_file(_LISTED))).resolve() == init.resolve()
    folder = _editable_folder(distribution)
    return folder is not None and init.resolve().is_relative_to(folder)


def _has_content_of(distribution: importlib.metadata.Distribution, init: Path) -> bool:
    digest = base64.urlsafe_b64encode(hashlib.sha256(init.read_bytes()).digest()).rstrip(b"=").decode()
    return f"{_LISTED},sha256={digest}," in (distribution.read_text("RECORD") or "")


def _editable_folder(distribution: importlib.metadata.Distribution) -> Path | None:
    """Where the sources of an editable installation are (PEP 610)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = urlsplit(origin.get("url", ""))
    if url.scheme != "file" or not origin.get("dir_info", {}).get("editable"):
        return None
    from urllib.request import url2pathname  # here, because it loads http.client

    return Path(url2pathname(url.path)).resolve()
