"""Beside the distributions that own `pepperpy/__init__.py`: which package an import finds, and whose the name is."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
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


def run(code: str, *sites: Site, site_packages: bool = False) -> str:
    """What a Python prints that has these folders before its own standard library; or the last line of its error."""
    path = os.pathsep.join(str(site.path) for site in sites)
    command = [sys.executable, *(() if site_packages else ("-S",)), "-W", "error", "-c", code]
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


# ---- What else can be met ----

IMPORT = "from pepperpy.network import NetworkClient; print(NetworkClient.__module__)"
OURS_FOUND = "pepperpy.network.tcp.client"


def test_a_neighbour_whose_own_dependencies_are_missing_fails_before_a_line_of_ours_runs(site: Site) -> None:
    site.add_ours().add("pepperpy", "1.8.0", "from structlog_that_is_missing import get_logger")
    assert run(IMPORT, site) == "ModuleNotFoundError: No module named 'structlog_that_is_missing'"


@pytest.mark.parametrize("ours_first", [True, False])
def test_in_another_folder_the_neighbour_hides_ours_in_whatever_order(
    site: Site, tmp_path: Path, ours_first: bool
) -> None:
    site.add_ours()
    core = Site(tmp_path / "core").add("pepperpy-core", "0.5.7", network="NetworkManager = 1")
    console = Site(tmp_path / "console").add("pepperpy-console", "0.3.1")

    def beside(neighbour: Site) -> str:
        return run(IMPORT, *((site, neighbour) if ours_first else (neighbour, site)))

    theirs = core.path / "pepperpy" / "network.py"
    assert beside(core) == f"ImportError: cannot import name 'NetworkClient' from 'pepperpy.network' ({theirs})"
    assert beside(console) == "ModuleNotFoundError: No module named 'pepperpy.network'"


def is_editable() -> bool:
    found = importlib.metadata.distributions(name="pepperpy-network")
    origins = [json.loads(distribution.read_text("direct_url.json") or "{}") for distribution in found]
    return any(origin.get("dir_info", {}).get("editable") for origin in origins)


@pytest.mark.skipif(not is_editable(), reason="this installation is no editable one")
def test_ours_in_editable_mode_is_found_unless_the_neighbour_has_a_module_of_that_name(tmp_path: Path) -> None:
    core = Site(tmp_path / "core").add("pepperpy-core", "0.5.7", network="NetworkManager = 1")
    console = Site(tmp_path / "console").add("pepperpy-console", "0.3.1")
    assert run(IMPORT, console, site_packages=True) == OURS_FOUND
    assert "cannot import name 'NetworkClient'" in run(IMPORT, core, site_packages=True)


def test_where_the_name_leads_can_be_asked_without_importing_it(site: Site) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('pepperpy').origin)"
    assert run(code, site.add_ours()) == "None"
    site.add("pepperpy", "1.8.0", "from structlog_that_is_missing import get_logger")
    assert run(code, site) == str(site.path / "pepperpy" / "__init__.py")


def test_every_neighbour_can_be_named_without_importing_it_in_whichever_folder_it_is(
    site: Site, tmp_path: Path
) -> None:
    site.add_ours().add("pepperpy", "1.8.0", "from structlog_that_is_missing import get_logger")
    core = Site(tmp_path / "core").add("pepperpy-core", "0.5.7", network="NetworkManager = 1")
    code = "import importlib.metadata as m; print(*sorted(set(m.packages_distributions()['pepperpy'])))"
    assert run(code, site, core) == "pepperpy pepperpy-core"
