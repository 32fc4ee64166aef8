"""The shape of the source: layers hold, purity holds, every module has its test, every setting and error its heading.

A rule that is broken on purpose is an entry of a table here, with its reason.
"""

import ast
import importlib
import io
import pkgutil
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from inspect import getattr_static, isclass, isfunction, signature
from pathlib import Path

import pytest

import gateway
from gateway import errors
from gateway.config.schema import Config
from gateway.config.spec import settings
from gateway.errors import GatewayError

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "gateway"
UNIT = ROOT / "tests" / "unit"
MODULES = sorted(GATEWAY.rglob("*.py"))
ERRORS_PAGE = (ROOT / "docs" / "errors.md").read_text()
MAX_LINES = 500

PURE = ("routing", "providers", "dialects", "inspection", "policy", "ledger")
IMPURE_IMPORTS = {"socket", "time", "random", "secrets", "os", "asyncio", "uvloop", "aiohttp", "logging"}

VENDOR = re.compile(r"openai|anthropic|claude|gpt|azure|bedrock|gemini|vertex|mistral|goog", re.IGNORECASE)
MAY_NAME_VENDORS = {
    "config/kinds.py": "the kinds a config may name, below the vendors in the layers; a test holds the two together",
    "config/starter.py": "a first config names the provider whose key is in the environment",
    "config/headers.py": "header names that carry credentials",
    "identity/credential.py": "where the SDKs of four vendors put a caller's key",
    "listener/head.py": "one path may be either dialect's: what the request looks like decides",
    "cli/banner.py": "the request to paste must suit the model's dialect",
}


def name_of(module: Path) -> str:
    return str(module.relative_to(GATEWAY))


def code_of(module: Path) -> Iterator[tokenize.TokenInfo]:
    """Names and strings of a module, without comments and docstrings."""
    text = module.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and node.body]
    docstrings = {
        (node.value.lineno, node.value.col_offset)
        for node in first
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start not in docstrings:
            yield token


def imports_of(module: Path) -> set[str]:
    """Top-level names that a module imports."""
    found = set[str]()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


# --- layers ---------------------------------------------------------------------------------------------------------


def test_imports_point_down() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("module", [m for m in MODULES if name_of(m).startswith(PURE)], ids=name_of)
def test_pure_folders_know_no_socket_clock_or_environment(module: Path) -> None:
    assert imports_of(module) & IMPURE_IMPORTS == set()
    assert not re.search(r"\b(datetime|date)\.(now|utcnow|today)\(", module.read_text())


# --- vendors --------------------------------------------------------------------------------------------------------


def names_a_vendor(module: Path) -> bool:
    return any(VENDOR.search(token.string) for token in code_of(module))


@pytest.mark.parametrize(
    "module", [m for m in MODULES if not name_of(m).startswith(("providers/", "dialects/"))], ids=name_of
)
def test_vendors_are_named_where_they_belong(module: Path) -> None:
    assert names_a_vendor(module) == (name_of(module) in MAY_NAME_VENDORS)


def test_an_exception_is_of_a_module_that_is_there() -> None:
    assert set(MAY_NAME_VENDORS) <= {name_of(module) for module in MODULES}


# --- modules and their tests ----------------------------------------------------------------------------------------


def mirror_of(module: Path) -> Path:
    relative = module.relative_to(GATEWAY)
    return UNIT / relative.parent / f"test_{relative.name}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.name.startswith("__")], ids=name_of)
def test_every_module_has_its_test(module: Path) -> None:
    mirrored = mirror_of(module)
    assert mirrored.is_file()
    assert re.search(r"^\s*(async )?def test_", mirrored.read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", [m for m in MODULES if m.name == "__init__.py"], ids=name_of)
def test_packages_hold_no_code_of_their_own(module: Path) -> None:
    body = ast.parse(module.read_text()).body
    assert isinstance(body[0], ast.Expr), "a package says what it is"
    assert all(isinstance(node, ast.Assign | ast.AnnAssign) for node in body[1:])


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_modules_open_with_their_theory_and_stay_small(module: Path) -> None:
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= MAX_LINES


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nothing_is_left_for_later(module: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", module.read_text())


@pytest.mark.parametrize("folder", ["unit", "property", "fault", "conformance", "integration"])
def test_no_test_is_set_aside(folder: str) -> None:
    for path in (ROOT / "tests" / folder).rglob("test_*.py"):
        assert not re.search(r"pytest\.(skip|mark\.(skip|skipif|xfail)|importorskip)\b", path.read_text()), path


# --- settings -------------------------------------------------------------------------------------------------------


def test_every_setting_is_on_its_page() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    leaves = {re.split(r"[.\]]", path)[-1] for path, _ in settings(Config)} - {"", "*"}
    assert len(leaves) > 60
    assert not [name for name in leaves if not re.search(rf"\b{name}\b", page)]


# --- errors ---------------------------------------------------------------------------------------------------------


def below(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


KINDS = {kind.code: kind for kind in below(GatewayError) if kind.__module__ == errors.__name__}
ROWS = re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \| (.+) \|$", ERRORS_PAGE, re.MULTILINE)


def test_every_error_is_described_and_nothing_else() -> None:
    described = {code: (int(status), fault) for code, status, fault, _ in ROWS}
    assert described == {code: (kind.status, kind.source.value) for code, kind in KINDS.items()}
    assert len(described) == len(ROWS)


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, _, _, text in ROWS])
def test_every_error_says_what_it_means(code: str, text: str) -> None:
    assert text.endswith("."), code
    assert len(text) >= 25


def test_errors_that_close_the_connection_are_listed() -> None:
    said = ERRORS_PAGE.partition("These also close the connection")[2].partition("Any other")[0]
    assert set(re.findall(r"`(\w+)`", said)) == {code for code, kind in KINDS.items() if kind.close}


def test_every_fault_is_explained() -> None:
    explained = set(re.findall(r"^\| (\w+) \| [a-z]", ERRORS_PAGE, re.MULTILINE)) - {"fault", "code"}
    assert explained == {source.value for source in errors.Source}


def test_settings_that_errors_name_exist() -> None:
    known = {re.split(r"[.\]]", path)[-1] for path, _ in settings(Config)}
    named = {
        name.rpartition(".")[2] for _, _, _, text in ROWS for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)?)`", text)
    }
    assert named - {"models"} <= known


# --- protocols ------------------------------------------------------------------------------------------------------

RUN_BY_OTHERS = {"gateway.__main__", "gateway.control.database.env"}  # by Python and by alembic: not to be imported
BY_CHANCE = 2  # methods whose names are those of a small protocol without being meant


def classes() -> list[type]:
    found = []
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if module.name not in RUN_BY_OTHERS:
            members = vars(importlib.import_module(module.name)).values()
            found += [member for member in members if isclass(member) and member.__module__ == module.name]
    return found


def parameters(kind: type, method: str) -> list[tuple[object, ...]]:
    told = signature(getattr_static(kind, method)).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in told]


def has(kind: type, methods: list[str]) -> bool:
    return all(isfunction(getattr_static(kind, method, None)) for method in methods)


def test_who_implements_a_protocol_takes_what_it_says_and_no_more() -> None:
    protocols, others = list[type](), list[type]()
    for kind in classes():
        (protocols if getattr(kind, "_is_protocol", False) else others).append(kind)
    compared = 0
    for protocol in protocols:
        methods = [name for name in dir(protocol) if name[0] != "_" and has(protocol, [name])]
        for kind in others if len(methods) > BY_CHANCE else ():
            if has(kind, methods):
                compared += 1
                for method in methods:
                    assert parameters(kind, method) == parameters(protocol, method), f"{kind.__qualname__}.{method}"
    assert compared > 10
