"""Storeys: each module imports only from its own storey and from those below. `CONTRIBUTING.md` shows the table.

What does not hold yet stands below as an exception with today's number. It may only shrink: an exception that is no
longer needed fails the test, too.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "pepperpy.network"

# From the ground up. A module may import those of its own storey and of the storeys named behind it. "http.*" is
# all of a folder.
STOREYS = {
    "ground": (
        "errors transient events printable units checks arguments settings last_turns detached timers lazy_types"
        " neighbours",
        "",
    ),
    "core": ("_core _core.*", "ground"),
    "shared": (
        "hosts address_policy proxy_rules proxy_url digest proxy_auth socket_checks keepalive tls_config tls_files tls"
        " tcp_settings config config_url json_codec json_types backoff watchdog daemon_threads lookup wire_log",
        "ground core",
    ),
    "link": ("link", "ground core shared"),
    "messages": ("messages messages.*", "ground core shared link"),
    "requests": ("requests requests.*", "ground core shared link messages"),
    "tcp": ("tcp tcp.*", "ground core shared link messages requests"),
    "pool": ("pool pool.*", "ground core shared link tcp"),
    "http": ("http http.*", "ground core shared tcp"),
    "adapters": ("httpx httpx2 otel", "ground http"),
    "streams": ("streams", "core"),
    "testing": ("testing testing.*", "ground core shared tcp http"),
    "command": ("command command.* __main__", "ground core shared link messages requests tcp pool http"),
    "package": ("(package)", "ground core shared link messages requests tcp pool http testing"),
}

# ---- Exceptions: what does not hold yet ----

# Imports from a storey that is not below.
UPWARD: set[str] = set()
# Those for annotations only, under TYPE_CHECKING, may run upwards where they are listed here.
ANNOTATIONS = {
    "config -> tcp.client",  # its callables take a NetworkClient
    "tcp_settings -> tcp.client",
    "link -> requests.exchanges",  # a link has the requests of its connection
}
# Private attributes of another module's objects, or of another package's where that has nothing better.
PRIVATE_OF_OTHERS = {
    "http.aiohttp_transport.socks: connector._factory",
    "http.aiohttp_transport.socks: connector._get_ssl_context",
    "http.aiohttp_transport.socks: connector._wrap_existing_connection",
}
# Private fields of Receiver and Sender that other compiled modules use.
PRIVATE_OF_DIRECTIONS: dict[str, int] = {}


def modules() -> dict[str, Path]:
    found = {}
    for folder, pattern in (("pepperpy", "*.py"), ("ext/pepperpy", "*.pxd"), ("ext/pepperpy", "*.pyx")):
        folder = ROOT / folder / "network"
        for path in folder.rglob(pattern):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name.removesuffix("__init__").rstrip(".") or "(package)"] = path
    return found


MODULES = modules()


def syntax(path: Path) -> ast.Module:
    text = path.read_text()
    if path.suffix != ".py":
        # Python's parser knows no Cython: the imports alone, those of names from C made those of Python.
        declared = path.with_suffix(".pxd")
        text += declared.read_text() if declared.exists() else ""
        lines = re.findall(r"^ *from pepperpy\.network[\w.]* c?import (?:\([^)]*\)|[^(\n]*)", text, re.MULTILINE)
        text = "\n".join(line.strip().replace(" cimport ", " import ") for line in lines)
    return ast.parse(text)


def imports(tree: ast.AST, annotations: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Module, name, and whether that is for annotations only; of this package."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imports(ast.Module(node.body, []), True)
            yield from imports(ast.Module(node.orelse, []), annotations)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(PACKAGE):
            module = node.module.removeprefix(PACKAGE).lstrip(".")
            for alias in node.names:
                whole = f"{module}.{alias.name}".lstrip(".")
                # A module, or a name in one.
                yield (whole, "", annotations) if whole in MODULES else (module or "(package)", alias.name, annotations)
        else:
            yield from imports(node, annotations)


IMPORTS = {name: sorted(set(imports(syntax(path)))) for name, path in MODULES.items()}
ARROWS = {name: {module for module, _, annotations in found if not annotations} for name, found in IMPORTS.items()}


def storey_of(module: str) -> str:
    for storey, (members, _) in STOREYS.items():
        for member in members.split():
            if module == member or (member.endswith("*") and module.startswith(member[:-1])):
                return storey
    raise AssertionError(f"{module} stands in no storey: add it to the table")


def uses(importer: str, imported: str) -> bool:
    storey = storey_of(importer)
    return storey_of(imported) in (storey, *STOREYS[storey][1].split())


def upward(annotations: bool) -> set[str]:
    return {
        f"{name} -> {module}"
        for name, found in IMPORTS.items()
        for module, _, for_annotations in found
        if for_annotations == annotations and not uses(name, module)
    }


def reached(start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for module in ARROWS[left.pop()] - seen:
            seen.add(module)
            left.append(module)
    return seen


def private_uses(names: set[str], path: Path) -> int:
    return sum(
        isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) not in ("self", "cls")
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_each_storey_names_only_storeys_before_it() -> None:
    before: list[str] = []
    for storey, (_, below) in STOREYS.items():
        assert set(below.split()) <= set(before), storey
        before.append(storey)


def test_the_contributors_guide_shows_the_table() -> None:
    shown = (ROOT / "CONTRIBUTING.md").read_text()
    for storey, (members, below) in STOREYS.items():
        escaped = members.replace("*", "\\*").replace("__", "\\_\\_")
        row = f"| {storey} | {escaped} | {below.replace(' ', ', ') or 'nothing'} |"
        assert row in shown, row


def test_imports_run_down() -> None:
    assert upward(annotations=False) == UPWARD


def test_imports_for_annotations_run_up_only_where_the_table_says_so() -> None:
    assert upward(annotations=True) == ANNOTATIONS


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert [name for name in MODULES if name in reached(name)] == []


def test_no_module_takes_a_private_name_of_another() -> None:
    names = [(name, module, word) for name, found in IMPORTS.items() for module, word, _ in found]
    taken = [f"{name}: {module}.{word}" for name, module, word in names if word.startswith("_")]
    assert taken == []


def test_private_attributes_of_a_client_are_its_own() -> None:
    # The parts of the class, each in a module of its own.
    parts = {
        "tcp.client": "NetworkClient",
        "tcp.inspecting": "InspectingMethods",
        "tcp.receiving": "ReceivingMethods",
        "tcp.sending": "SendingMethods",
        "tcp.messaging": "MessagingMethods",
    }
    names = set()
    for module, title in parts.items():
        tree = syntax(MODULES[module])
        part = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == title)
        names |= {node.name for node in part.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        names |= {node.attr for node in ast.walk(part) if isinstance(node, ast.Attribute)}
    names = {name for name in names if re.match("_[a-z]", name)}
    others = {name: path for name, path in MODULES.items() if name not in parts and path.suffix == ".py"}
    found = Counter({name: private_uses(names, path) for name, path in others.items()})
    assert +found == Counter()


def test_private_attributes_belong_to_the_module_that_uses_them() -> None:
    # As far as their names tell: one that this module has as well is taken for its own.
    found = set()
    for name, path in MODULES.items():
        if path.suffix == ".py":
            nodes = list(ast.walk(syntax(path)))
            own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
            own |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
            attributes = [node for node in nodes if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)]
            own |= {node.attr for node in attributes if ast.unparse(node.value) in ("self", "cls")}
            found |= {f"{name}: {ast.unparse(node)}" for node in attributes if node.attr not in own}
    assert found == PRIVATE_OF_OTHERS


def test_private_fields_of_the_two_directions_are_their_own() -> None:
    found: Counter[str] = Counter()
    for direction in ("_core.input_stream", "_core.receiver", "_core.sender"):
        declared = MODULES[direction].with_suffix(".pxd").read_text()
        fields = re.findall(r"^ {4,8}\w[\w ]* (_\w+)\b", declared, re.MULTILINE)
        use = re.compile(rf"\b(?!(?:self|network)\b)\w+\.(?:{'|'.join(fields)})\b")
        for name, path in MODULES.items():
            if path.suffix == ".pyx" and name != direction:
                found[name] += len(use.findall(path.read_text()))
    assert +found == PRIVATE_OF_DIRECTIONS
