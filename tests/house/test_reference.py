"""docs/api.md and docs/settings.md: each public name and each setting is there, with the default that it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import pepperpy.network
import pepperpy.network.testing
from pepperpy.network import (
    BufferLimits,
    Heartbeat,
    HTTPConfig,
    Keepalive,
    NetworkConfig,
    PublicOnly,
    RateLimit,
    Reconnect,
    ResponseLimits,
    TLSConfig,
)

DOCS = Path(__file__).parents[2] / "docs"
PARTS = (TLSConfig, Keepalive, PublicOnly, Reconnect, Heartbeat, BufferLimits, ResponseLimits, RateLimit)
# What the page says in words.
IN_WORDS = {"required", "from these three", "TLS 1.2", '"auto"', '"client"', "timeout", ""}


def test_the_reference_has_each_public_name() -> None:
    text = (DOCS / "api.md").read_text()
    shown = re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)$", text, re.MULTILINE)
    public = {name for name in (*pepperpy.network.__all__, *pepperpy.network.testing.__all__) if name[0] != "_"}
    assert sorted(shown) == sorted(public)


def rows(section: str) -> dict[str, str]:
    """The settings of a section, and their defaults as the page writes them."""
    found: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`[^|]+`) \| ([^|]*?) ?\|", section, re.MULTILINE):
        fields, values = re.findall(r"`(\w+)`", names), re.split(r"(?<=`), ", defaults)
        found.update(zip(fields, values if len(values) == len(fields) else values * len(fields), strict=True))
    return found


def section_of(settings: type) -> str:
    text = (DOCS / "settings.md").read_text()
    if settings in PARTS:
        return text.split(f"| **{settings.__name__}** |")[1].split("| **")[0].split("\n## ")[0]
    return text.split(f"\n## {settings.__name__}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("settings", [NetworkConfig, HTTPConfig, *PARTS])
def test_the_page_of_settings_has_each_field_with_its_default(settings: type) -> None:
    shown = rows(section_of(settings))
    fields = {field.name: field for field in dataclasses.fields(settings)}
    assert sorted(shown) == sorted(fields)
    for name, text in shown.items():
        if (value := text.strip("`")) not in IN_WORDS:
            field = fields[name]
            default = field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[misc]
            made = eval(value, vars(pepperpy.network))
            assert default == (frozenset(made) if isinstance(default, frozenset) else made), name
