#!/usr/bin/env python3
"""Refuses a release that is not ready: `.ci/release.py v0.2.0`. docs/releasing.md says what to do.

It needs nothing but Python 3.11. The workflow runs it before it builds what a tag publishes.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
# Hosts and words that documents use where an address is to be filled in (RFC 2606).
PLACEHOLDER = re.compile(
    r"\bexample\b|\.(test|invalid|localhost)$|\b(your|placeholder|owner)\b|\.\.\.|[<>]", re.IGNORECASE
)
NOT_YET = "not on PyPI yet"


def faults(root: Path, tag: str) -> list[str]:
    """What is missing for a release of this tag."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    version = project["version"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag {tag!r} is not that of version {version} in pyproject.toml")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        found.append(f"CHANGELOG.md has no section '## {version} (YYYY-MM-DD)'")
    if not all(re.fullmatch(r"[^@\s]+@[^@\s]+", author.get("email", "")) for author in project["authors"]):
        found.append("an author in pyproject.toml has no e-mail address")
    source = project.get("urls", {}).get("Source", "")
    url = urlsplit(source)
    if url.scheme != "https" or not url.path.strip("/") or PLACEHOLDER.search(source):
        found.append(f"Source of [project.urls] in pyproject.toml is not the URL of the repository: {source!r}")
    if NOT_YET in (root / "README.md").read_text():
        found.append(f"README.md still says that this is {NOT_YET}")
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if found := faults(ROOT, sys.argv[1]):
        sys.exit("\n".join(["this is no release:", *(f"  - {fault}" for fault in found)]))
    print(f"{sys.argv[1]} may be released")


if __name__ == "__main__":
    main()
