"""README, CHANGELOG, ARCHITECTURE and the decisions against the source: what they name exists, what exists is named."""

import io
import re
import tomllib
from pathlib import Path

import pytest

import gateway
from gateway.cli import banner
from gateway.cli.main import main
from gateway.config.load import read_text
from gateway.config.starter import default_config
from gateway.dialects.surfaces import SURFACES
from gateway.process.signals import HANDLED

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])
ENV = {name: "long-enough-" + name for name in re.findall(r"\$\{(\w+)\}", README)}
LINES_OF_A_PAGE = 60


def block(language: str, containing: str) -> str:
    """The README's code block in that language with that text."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (wanted,) = [code for named, code in found if named == language and containing in code]
    return str(wanted)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank."""
    rank = heading.split(" ", maxsplit=1)[0]
    return re.split(rf"^{rank} ", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """The fragments a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, fragment = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page.name} links to {target}"
            assert not fragment or fragment in anchors(there), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_verb_of_make_exists(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)) <= verbs


# --- README -------------------------------------------------------------------------------------------------------


def test_the_readme_shows_what_the_banner_prints(tmp_path: Path) -> None:
    text = default_config({}, "gw-secret", "t" * 32)
    out = Terminal()
    banner.show(read_text(text, "gateway.yaml", tmp_path, (), {}).config, 8080, 8081, with_curl=True, out=out)
    printed = re.sub(r"\d+ workers?", "2 workers", out.getvalue()).replace("gw-secret", "gw-…")
    assert printed.strip() == block("", "try it").strip()


def test_the_readmes_config_loads(tmp_path: Path) -> None:
    config = read_text(block("yaml", "providers:"), "gateway.yaml", tmp_path, (), ENV).config
    assert len(config.providers) == 3
    assert [key.id for key in config.keys] == ["search-ui", "batch-2027"]
    assert (config.keys[0].rpm, config.keys[0].tpm) == (600, 100_000)
    assert config.keys[0].usd_per_month
    assert config.models["small"].price, "what has no price is refused where USD are counted"


def test_the_readme_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    commands = help_names(capsys, "--help") - {"keys"} | {f"keys {name}" for name in help_names(capsys, "keys")}
    rows = set(re.findall(r"^\| `gateway (.*?)` \|", section(README, "## Commands"), re.MULTILINE))
    assert rows == commands


def help_names(capsys: pytest.CaptureFixture[str], *words: str) -> set[str]:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    return set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))


def test_the_readme_lists_every_surface() -> None:
    paths = {surface.path.replace("...}", "}").replace("{rest}", "…") for surface in SURFACES}
    rows = re.findall(r"^\|.*\|$", section(README, "## What callers may use"), re.MULTILINE)
    named = set(re.findall(r"`(/[^`]+)`", "\n".join(rows)))
    assert named == paths | {"/healthz", "/readyz"}


# --- ARCHITECTURE -------------------------------------------------------------------------------------------------


def test_the_journey_has_every_stage_of_the_map() -> None:
    stages = re.findall(r"^  (\d \w+) {2,}", gateway.__doc__ or "", re.MULTILINE)
    rows = re.findall(r"^\| (\d \w+) \|", section(ARCHITECTURE, "## The journey"), re.MULTILINE)
    assert len(stages) >= 6
    assert rows == stages, "a stage that is built belongs on the map, and the other way round"


def test_the_signals_are_those_that_are_handled() -> None:
    rows = section(ARCHITECTURE, "### Signals")
    named = set(re.findall(r"SIG[A-Z0-9]+", rows))
    assert {signal.name for signal in HANDLED} - {"SIGCHLD"} <= named
    assert named <= {signal.name for signal in HANDLED} | {"SIGUSR1", "SIGKILL"}


def test_the_layers_are_those_that_are_held() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    held = [[name.strip(" ()") for name in layer.split("|")] for layer in layers]
    built = {path.stem for path in (ROOT / "gateway").iterdir()}
    drawn = section(ARCHITECTURE, "## Layers").split("```")[1].strip().splitlines()
    assert [line.split(" | ") for line in drawn] == [[name for name in layer if name in built] for layer in held]


# --- decisions and changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_why_on_one_page(path: Path) -> None:
    text = path.read_text()
    parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert parts == ["Context", "Decision", "Evidence", "Consequences", "When to revisit"]
    assert text.startswith(f"# {path.name[:4]}: ")
    assert len(text.splitlines()) <= LINES_OF_A_PAGE


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}-.*?\.md)\)", index) == [path.name for path in DECISIONS]
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_changelog_begins_with_this_version() -> None:
    assert re.findall(r"^## (\S+)", CHANGELOG, re.MULTILINE)[0].strip("[]") == gateway.__version__
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
