"""Mistakes that mypy and pyright find, one a line: a checker that finds none there reports the comment as needless."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from pepperpy.network import HTTPClinet  # type: ignore[attr-defined]
from pepperpy.network import NetworkClient, NetworkConfig
from pepperpy.network import NetworkClinet  # type: ignore[attr-defined]

NetworkClient("localhost")  # type: ignore[arg-type]
NetworkConfig("localhost", "8000")  # type: ignore[arg-type]
