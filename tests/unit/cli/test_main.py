"""Words become calls: every command is found, helped with, and answered with the right code."""

import io
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable

import pytest

from gateway import __version__
from gateway.cli import commands, main, serve
from gateway.dialects.surfaces import SURFACES

CASES = [
    (["serve"], serve, "run", {"config": "gateway.yaml", "set": [], "curl": False}),
    (["serve", "--config", "f", "--set", "a.b=1", "--set", "c=2", "--curl"], serve, "run", {"set": ["a.b=1", "c=2"]}),
    (["check", "--config", "f"], commands, "run_check", {"config": "f", "quiet": False, "route": None}),
    (["check", "--route", "/v1/x", "gpt", "app=ui"], commands, "run_check", {"route": ["/v1/x", "gpt", "app=ui"]}),
    (["check", "--quiet"], commands, "run_check", {"quiet": True}),
    (["init"], commands, "run_init", {"path": "gateway.yaml"}),
    (["init", "other.yaml"], commands, "run_init", {"path": "other.yaml"}),
    (["keys", "new"], commands, "run_keys_new", {}),
    (["keys", "hash"], commands, "run_keys_hash", {"secret": "-"}),
    (["keys", "hash", "gw-x"], commands, "run_keys_hash", {"secret": "gw-x"}),
    (["keys", "revoke", "demo", "--force"], commands, "run_keys_revoke", {"id": "demo", "force": True}),
    (["targets", "--set", "a=b"], commands, "run_targets", {"set": ["a=b"]}),
]


@pytest.mark.parametrize(
    ("words", "module", "name", "expected"), CASES, ids=lambda case: " ".join(case) if isinstance(case, list) else ""
)
def test_words_become_one_call(
    words: list[str], module: object, name: str, expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Namespace] = []
    assert callable(getattr(module, name))

    def noted(namespace: Namespace) -> int:
        given.append(namespace)
        return 7

    monkeypatch.setattr(module, name, noted)
    assert main.main(words) == 7
    assert expected.items() <= vars(given[0]).items()


@pytest.mark.parametrize(
    "words", [[], ["nothing"], ["keys"], ["keys", "revoke"], ["serve", "--nope"], ["init", "a", "b"]]
)
def test_wrong_words_end_with_2_and_a_hint(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2
    assert "usage: gateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["check"],
        ["init"],
        ["keys"],
        ["keys", "new"],
        ["keys", "hash"],
        ["keys", "revoke"],
        ["targets"],
        ["dialects"],
        ["why"],
        [],
    ],
)
def test_every_command_helps(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([*words, "--help"])
    assert ended.value.code == 0
    assert " ".join(["gateway", *words]) in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert capsys.readouterr().out == f"gateway {__version__}\n"


def test_the_dialects_are_listed_with_every_surface(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["dialects"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SURFACES)
    for line, surface in zip(lines, SURFACES, strict=True):
        assert line.split() == [surface.dialect, surface.method, surface.path, surface.name]


def raising(error: BaseException) -> Callable[[Namespace], int]:
    def run(_: Namespace) -> int:
        raise error

    return run


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "run_keys_new", raising(KeyboardInterrupt()))
    assert main.main(["keys", "new"]) == 130


def test_a_reader_that_has_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(commands, "run_keys_new", raising(BrokenPipeError()))
    assert main.main(["keys", "new"]) == 0


def test_help_loads_no_server() -> None:
    script = "import sys\nfrom gateway.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "print([name for name in ('aiohttp', 'uvloop', 'gateway.listener') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
