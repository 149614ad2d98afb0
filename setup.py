"""Lists the C extensions. Everything else is in pyproject.toml."""

import os
import re
import sys
import sysconfig
import tempfile
import tomllib

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

from distutils.ccompiler import new_compiler  # isort: skip  (setuptools brings it)
from distutils.sysconfig import customize_compiler  # isort: skip

# NET_DEBUG=1 builds with bounds checks and assertions, for the test suite; NET_SANITIZE=1 also with AddressSanitizer
# and UndefinedBehaviorSanitizer, whose libraries are then to be preloaded (Makefile); NET_ANNOTATE=1 writes Cython's
# report of each module instead.
SANITIZE = bool(os.environ.get("NET_SANITIZE"))
DEBUG = SANITIZE or bool(os.environ.get("NET_DEBUG"))
ANNOTATE = bool(os.environ.get("NET_ANNOTATE"))
# A folder for each: neither Cython nor setuptools notices that directives or flags have changed.
BUILD = "build/annotate" if ANNOTATE else "build/sanitize" if SANITIZE else "build/debug" if DEBUG else "build"
# Those with a .pxd, which others are compiled against; and those that are only imported.
SHARED = (
    *("destination", "endpoint", "framer", "http_head", "http_reader", "input_stream", "receive_buffer", "receiver"),
    *("record", "send_queue", "sender", "separators", "waiter"),
)
MODULES = (
    *SHARED,
    *("builtin_framers", "event_stream", "frame_reader", "handover", "http_exchange", "lending", "limit"),
    *("python_framers", "reader_core", "stream_protocol", "stuffing", "writer_core"),
)
SOURCES = "ext/pepperpy/network/_core"

directives = {
    "language_level": 3,
    "binding": False,
    "embedsignature": True,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "cdivision": True,
}
if os.name == "nt":
    flags = []
else:
    flags = ["-O0", "-g"] if DEBUG else ["-O2", "-g0", "-Wall", "-Wsign-compare", "-Wno-unused-variable"]
link_flags = []
if SANITIZE:
    link_flags = ["-fsanitize=address,undefined"]
    # -fno-wrapv: CPython's own -fwrapv, which distutils passes on, defines what a signed overflow does.
    flags = ["-O1", "-g", "-fno-omit-frame-pointer", *link_flags, "-fno-sanitize-recover=undefined", "-fno-wrapv"]


def check_compiler() -> None:
    """End at once, with what is missing: without this, Cython works for a minute before the compiler is called."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    needs = {
        "": "a C compiler that works: install one (Debian: gcc and libc6-dev), or name it in CC",
        "#include <Python.h>": f"the headers of Python {version}: install them (Debian: python3-dev)",
    }
    for line, what in needs.items():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "check.c")
            with open(path, "w") as file:
                file.write(f"{line}\nint check(void) {{ return 0; }}\n")
            compiler = new_compiler()
            customize_compiler(compiler)
            try:
                compiler.compile([path], output_dir=folder, include_dirs=[sysconfig.get_path("include")])
            except (CCompilerError, BaseError) as error:
                raise SystemExit(f"error: building pepperpy-network needs {what} ({error})") from None


class BuildExtensions(build_ext):
    """Drops the paths where a CPython in a folder of its own (pyenv's, conda's) lets its extensions look for libraries.

    The extensions need no library but that of C. On another machine such a path names whatever folder is there.
    """

    def build_extensions(self):
        for name in ("linker_so", "linker_so_cxx"):
            if hasattr(self.compiler, name):
                command = getattr(self.compiler, name)
                setattr(self.compiler, name, [word for word in command if not word.startswith("-Wl,-rpath")])
        super().build_extensions()


def long_description() -> str:
    """README.md for an index, where links relative to the repository lead nowhere: they lead to this version's files.

    Source of [project.urls] says where the repository is. Without it the links stay as they are, and .ci/release.py
    refuses the release.
    """
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    with open("README.md", encoding="utf-8") as file:
        text = file.read()
    source = project.get("urls", {}).get("Source", "").rstrip("/")
    if source:
        for start, kind in ((r"(!\[[^]]*\]\()", "raw"), (r"((?<!!)\[[^]]*\]\()", "blob")):
            text = re.sub(rf"{start}(?![\w+]+:|#)", rf"\1{source}/{kind}/v{project['version']}/", text)
    return text


# Metadata and a source distribution need neither a compiler nor what Cython makes.
BUILDS = not {"dist_info", "egg_info", "sdist"} & set(sys.argv)
if BUILDS:
    check_compiler()

setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[]
    if not BUILDS
    else cythonize(
        [
            Extension(
                f"pepperpy.network._core.{name}",
                [f"{SOURCES}/{name}.pyx"],
                include_dirs=[SOURCES],
                depends=[f"{SOURCES}/{name}" for name in ("platform.h", "record.h", "running.h", "status.pxd")]
                + [f"{SOURCES}/{module}.pxd" for module in SHARED],
                define_macros=[] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", None)],
                extra_compile_args=flags,
                extra_link_args=link_flags,
            )
            for name in MODULES
        ],
        include_path=["ext"],
        build_dir=f"{BUILD}/cython",
        compiler_directives=directives,
        annotate=ANNOTATE,
    ),
    options={"build": {"build_base": BUILD}, "build_ext": {"parallel": True}},
)
