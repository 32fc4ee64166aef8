"""docs/configuration.md and the schema say the same: every setting, its type, its default; and every example loads."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import headers, unenforced
from gateway.config.kinds import KINDS
from gateway.config.load import read_text
from gateway.config.schema import BUILT_IN, Config
from gateway.config.sizes import format_size
from gateway.config.spec import Field, Spec, settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
TEXT = PAGE.read_text()
ROWS = {
    cells[0].strip("`"): (cells[1], cells[2])
    for line in TEXT.splitlines()
    if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("| ").split(" | ")]) == 4
}
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
ENV = {"OPENAI_API_KEY": "k1", "ANTHROPIC_API_KEY": "k2", "GATEWAY_ADMIN_TOKEN": "t" * 16, "DEMO_KEY": "gw-demo"}
WORDS = {
    "text": "text",
    "integer": "integer",
    "number": "seconds",
    "truth": "true, false",
    "moment": "moment",
    "network": "network",
    "secret": "secret",
    "free": "any",
}

MARKS = {"size": "size", "path": "path", "usd": "USD", "amount": "number"}


SHARED = ("relay", "max_attempts", "hold_s", "keepalive_comment_s", "durability", "on_failure")


def documented_path(path: str) -> str:
    """Where a setting that exists in several places is described."""
    path = re.sub(r".*(timeouts\.)", r"\1", path)
    return re.sub(rf"^routes\[\]\.({'|'.join(SHARED)})$", r"defaults.\1", path)


def holds_structs(spec: Spec) -> bool:
    return spec.form == "struct" or (spec.item is not None and spec.item.form == "struct")


def in_words(spec: Spec) -> str:
    if spec.form == "choice":
        return ", ".join(spec.choices)
    if spec.form in ("list", "dict"):
        assert spec.item is not None
        return f"{'list' if spec.form == 'list' else 'mapping'} of {in_words(spec.item)}"
    return MARKS.get(spec.mark) or WORDS[spec.form]


def default_of(path: str, field: Field) -> str:
    if field.required:
        return "required"
    if field.default is None:
        built_in = BUILT_IN.timeouts if path.startswith("timeouts.") else BUILT_IN
        return str(getattr(built_in, field.name, "none"))
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if field.spec.mark == "size":
        assert isinstance(field.default, int)
        return format_size(field.default)
    if isinstance(field.default, tuple | dict):
        return "empty" if not field.default else ", ".join(map(str, field.default))
    return str(field.default) or "empty"


def expected() -> Iterator[tuple[str, Field]]:
    seen = set[str]()
    for path, field in settings(Config):
        where = documented_path(path)
        if not holds_structs(field.spec) and where not in seen:
            seen.add(where)
            yield where, field


@pytest.mark.parametrize(("path", "field"), list(expected()))
def test_every_setting_is_described_with_its_type_and_default(path: str, field: Field) -> None:
    assert path in ROWS
    assert ROWS[path] == (in_words(field.spec), f"`{default_of(path, field)}`")


def test_nothing_is_described_that_does_not_exist() -> None:
    assert set(ROWS) == {path for path, _ in expected()}


def test_every_section_has_its_heading() -> None:
    headings = set(re.findall(r"^#+ `(.*?)`", TEXT, flags=re.MULTILINE))
    sections = {documented_path(path) for path, field in settings(Config) if holds_structs(field.spec)}
    top = {path for path in sections if "." not in path}
    assert {"listen", "providers", "models", "keys", "routes", "defaults"} < top
    assert top | {"timeouts", "listen.tls", "routes[].match"} <= headings


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads(example: str, tmp_path: Path) -> None:
    for name in re.findall(r"[\w./-]+\.pem", example):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a certificate")
    (tmp_path / "demo.key").write_text("gw-from-a-file\n")
    loaded = read_text(example, "docs/configuration.md", tmp_path, (), ENV)
    assert loaded.config != Config()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_what_is_not_enforced_is_said() -> None:
    for name in set().union(*unenforced.SETTINGS.values()):
        assert f"`{name}`" in TEXT
    for kind, (_, built) in KINDS.items():
        assert built or f"`{kind}`" in TEXT


def test_headers_that_carry_credentials_are_said() -> None:
    assert all(f"`{name}`" in TEXT for name in headers.CREDENTIALS)


def test_the_examples_together_touch_most_settings() -> None:
    everything = "\n".join(EXAMPLES)
    unused = [path for path, _ in expected() if re.split(r"[.\]]", path)[-1] not in everything]
    assert len(unused) <= 12
