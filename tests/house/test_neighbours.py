"""Beside the distributions that own `pepperpy/__init__.py`: which package an import finds, and whose the name is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pepperpy.network

pytestmark = pytest.mark.slow

OURS = Path(pepperpy.network.__file__).parent
TELL = "import pepperpy.network.neighbours as n; print(n.namespace_owner())"


class Site:
    """A folder on `sys.path`, as pip leaves one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def add_ours(self) -> Site:
        (self.path / "pepperpy").mkdir(exist_ok=True)
        (self.path / "pepperpy" / "network").symlink_to(OURS, target_is_directory=True)
        return self

    def add(self, name: str, version: str, init: str = "", **modules: str) -> Site:
        """Install a neighbour: `pepperpy/__init__.py`, further modules, and what pip writes about it."""
        (self.path / "pepperpy").mkdir(exist_ok=True)
        digest = base64.urlsafe_b64encode(hashlib.sha256(init.encode()).digest()).rstrip(b"=").decode()
        record = f"pepperpy/__init__.py,sha256={digest},{len(init)}\n"
        for module, text in {"__init__": init, **modules}.items():
            (self.path / "pepperpy" / f"{module}.py").write_text(text)
        self._describe(name, version, "RECORD", record)
        return self

    def add_editable(self, name: str, version: str, sources: Site) -> Site:
        origin = {"url": sources.path.as_uri(), "dir_info": {"editable": True}}
        self._describe(name, version, "direct_url.json", json.dumps(origin))
        self._describe(name, version, "RECORD", "")
        return self

    def _describe(self, name: str, version: str, file: str, text: str) -> None:
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / file).write_text(text)


def run(code: str, *sites: Site) -> str:
    """What a Python prints that has these folders before its own standard library; or the last line of its error."""
    path = os.pathsep.join(str(site.path) for site in sites)
    command = [sys.executable, "-S", "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=sites[0].path, env={**os.environ, "PYTHONPATH": path}
    )
    return (done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]).strip()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_without_a_neighbour_the_name_is_nobodys(site: Site) -> None:
    assert run(TELL, site.add_ours()) == "None"


@pytest.mark.parametrize("ours_first", [True, False])
def test_in_one_folder_the_neighbour_owns_the_name_and_our_package_is_found(site: Site, ours_first: bool) -> None:
    # Whoever is installed first: no file is in both.
    if ours_first:
        site.add_ours().add("pepperpy-core", "0.5.7", "here = True", network="NetworkManager = 1")
    else:
        site.add("pepperpy-core", "0.5.7", "here = True", network="NetworkManager = 1").add_ours()
    assert run(TELL, site) == f"pepperpy-core 0.5.7 ({site.path / 'pepperpy' / '__init__.py'})"
    assert run("import pepperpy; from pepperpy.network import NetworkClient; print(pepperpy.here)", site) == "True"


def test_of_several_neighbours_the_one_that_was_installed_last_owns_the_name(site: Site) -> None:
    site.add_ours().add("pepperpy", "1.8.0", "one = 1").add("pepperpy-core", "0.5.7", "two = 2")
    assert run(TELL, site).startswith("pepperpy-core 0.5.7 (")
    site.add("pepperpy", "1.8.0", "one = 1")
    assert run(TELL, site).startswith("pepperpy 1.8.0 (")


def test_an_editable_neighbour_is_known_by_the_folder_of_its_sources(site: Site, tmp_path: Path) -> None:
    sources = Site(tmp_path / "sources")
    sources.add("ignored", "0").add_ours()
    (sources.path / "ignored-0.dist-info" / "RECORD").unlink()
    site.add_editable("pepperpy-core", "0.5.8", sources)
    assert run(TELL, site, sources).startswith("pepperpy-core 0.5.8 (")


def test_a_folder_that_no_distribution_lists_is_named_all_the_same(site: Site) -> None:
    site.add_ours()
    init = site.path / "pepperpy" / "__init__.py"
    init.touch()
    assert run(TELL, site) == f"no installed distribution ({init})"
