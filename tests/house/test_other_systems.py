"""What other systems lack, taken away here: the suite can still be collected, and what cannot work says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pepperpy.network import HTTPConfig, NetworkConfig

TESTS = Path(__file__).parents[1]

# Windows has none of these modules and names, and uvloop is not there. What the standard library, pytest and this
# package import on Linux only is imported before.
LACKING = """
import sys
import asyncio, mmap, multiprocessing.connection, os, selectors, socket, socketserver, subprocess, tempfile
import _pytest.capture, pytest
import pepperpy.network.testing.tcp_reset
sys.modules |= dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios", "uvloop", "winloop"])
for module, names in ((os, "fork geteuid getuid register_at_fork"), (socket, "AF_UNIX")):
    for name in names.split():
        delattr(module, name)
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_suite_can_be_collected_where_uvloop_and_the_names_of_unix_are_missing() -> None:
    command = [sys.executable, "-c", LACKING, str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("config", [NetworkConfig, HTTPConfig])
def test_a_unix_socket_is_refused_where_python_has_none(monkeypatch: pytest.MonkeyPatch, config: type) -> None:
    monkeypatch.delattr("socket.AF_UNIX")
    with pytest.raises(ValueError, match=r"unix_path='/run/x' needs Unix sockets; Python has none on this system"):
        config(unix_path="/run/x")
    with pytest.raises(ValueError, match="needs Unix sockets"):
        NetworkConfig.from_url("unix:///run/x")
