"""What a release is refused for (.ci/release.py), and what an index shows of the README."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = "https://code.example/pepper/network"


def load_release() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Repository:
    """A copy of the files that a release is judged by, ready to be released."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("pyproject.toml", "CHANGELOG.md", "README.md"):
            shutil.copy(ROOT / name, root)
        self.change("pyproject.toml", r'^version = ".*"$', 'version = "7.8.9"')
        self.change("CHANGELOG.md", r"^## .*$", "## 7.8.9 (2030-01-31)")
        self.change("README.md", r"not on PyPI yet", "on PyPI", count=0)
        self.change("pyproject.toml", r"^authors = .*$", 'authors = [{ name = "A", email = "a@pepper.org" }]')
        self.set_source("https://code.pepper.org/network")

    def change(self, name: str, pattern: str, text: str, count: int = 1) -> None:
        path = self.root / name
        path.write_text(re.sub(pattern, text, path.read_text(), count=count, flags=re.MULTILINE))

    def set_source(self, url: str) -> None:
        self.change("pyproject.toml", r'^\[project\.urls\]\nSource = ".*"\n', "")
        if url:
            self.change("pyproject.toml", r"^\[project\.scripts\]$", f'[project.urls]\nSource = "{url}"\n\\g<0>')


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def faults(repository: Repository, tag: str = "v7.8.9") -> list[str]:
    found: list[str] = load_release().faults(repository.root, tag)
    return found


def test_what_is_ready_may_be_released(repository: Repository) -> None:
    assert faults(repository) == []


def test_the_tag_is_that_of_the_version_and_the_changelog_has_it_with_a_date(repository: Repository) -> None:
    assert faults(repository, "v7.8.10") == ["the tag 'v7.8.10' is not that of version 7.8.9 in pyproject.toml"]
    repository.change("CHANGELOG.md", r"^## .*$", "## 7.8.9 (unreleased)")
    assert faults(repository) == ["CHANGELOG.md has no section '## 7.8.9 (YYYY-MM-DD)'"]


@pytest.mark.parametrize(
    "url",
    [
        *("", "https://...", "https://github.com/OWNER/network", "https://github.com/your-name/network", SOURCE),
        *("http://code.pepper.org/network", "https://code.pepper.org/", "https://code.pepper.org/<name>"),
    ],
)
def test_a_url_of_the_repository_that_is_missing_or_stands_in_for_one_is_refused(
    repository: Repository, url: str
) -> None:
    repository.set_source(url)
    assert faults(repository) == [
        f"Source of [project.urls] in pyproject.toml is not the URL of the repository: {url!r}"
    ]


@pytest.mark.parametrize("email", ["", ', email = "..."'])
def test_an_author_without_an_e_mail_address_is_refused(repository: Repository, email: str) -> None:
    repository.change("pyproject.toml", r"^authors = .*$", f'authors = [{{ name = "A"{email} }}]')
    assert faults(repository) == ["an author in pyproject.toml has no e-mail address"]


def test_a_readme_that_says_that_there_is_no_release_is_refused(repository: Repository) -> None:
    repository.change("README.md", r"\Z", "It is not on PyPI yet.\n")
    assert faults(repository) == ["README.md still says that this is not on PyPI yet"]


def test_the_workflow_asks_before_it_builds_what_a_tag_publishes() -> None:
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    assert workflow.index('.ci/release.py "$GITHUB_REF_NAME"') < workflow.index("python -m build --sdist")


def shown_on_an_index(repository: Repository) -> str:
    """The README as the metadata of the distribution have it."""
    shutil.copy(ROOT / "setup.py", repository.root)
    # In place of Cython, which is not needed for metadata.
    (repository.root / "Cython").mkdir()
    (repository.root / "Cython" / "Build.py").write_text("def cythonize(*_, **__): raise AssertionError\n")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", "."]
    environment = os.environ | {"PYTHONPATH": str(repository.root)}
    subprocess.run(command, cwd=repository.root, env=environment, check=True, capture_output=True)
    metadata = message_from_string((repository.root / "pepperpy_network.egg-info" / "PKG-INFO").read_text())
    assert metadata["Description-Content-Type"] == "text/markdown"
    return str(metadata.get_payload())


@pytest.mark.slow
def test_on_an_index_links_and_the_picture_lead_to_the_files_of_the_version(repository: Repository) -> None:
    repository.set_source(f"{SOURCE}/")
    text = shown_on_an_index(repository)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(target.startswith("https://") for target in targets)
    assert f"]({SOURCE}/raw/v7.8.9/docs/benchmarks/tcp.png)" in text
    assert f"[docs/tcp.md]({SOURCE}/blob/v7.8.9/docs/tcp.md)" in text
    assert f"({SOURCE}/blob/v7.8.9/docs/migrating.md#httpx)" in text
    readme = (repository.root / "README.md").read_text()
    assert re.sub(re.escape(SOURCE) + r"/\w+/v7\.8\.9/", "", text).strip() == readme.strip()


@pytest.mark.slow
def test_without_a_url_of_the_repository_the_readme_is_shown_as_it_is(repository: Repository) -> None:
    repository.set_source("")
    assert shown_on_an_index(repository).strip() == (repository.root / "README.md").read_text().strip()
