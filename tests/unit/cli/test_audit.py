"""The words of `gateway audit`: every one is helped with, becomes one call, and loads nothing before it is needed."""

import argparse
import subprocess
import sys
from argparse import Namespace

import pytest

from gateway.cli import audit, audit_check, audit_read

COMMANDS = [
    ["verify"], ["prove"], ["check-proof"], ["show"], ["grep"], ["anchor"], ["keys"],
    ["keys", "list"], ["keys", "export"], ["keys", "rotate"],
]  # fmt: skip

CASES = [
    (["verify"], audit_check, "verify", {"directory": None, "config": "gateway.yaml", "public_key": [], "since": None}),
    (["verify", "d", "--public-key", "a", "--public-key", "b", "--from", "7", "--json", "--progress"],
     audit_check, "verify", {"directory": "d", "public_key": ["a", "b"], "since": "7", "json": True, "progress": True}),
    (["prove", "w0/1/2", "d"], audit_check, "prove", {"id": "w0/1/2", "directory": "d"}),
    (["check-proof", "-"], audit_check, "check_proof", {"file": "-", "public_key": []}),
    (["show", "--key", "k", "--limit", "5"], audit_read, "show", {"key": "k", "limit": 5, "follow": False}),
    (["show", "--unfinished"], audit_read, "show", {"unfinished": True, "limit": None}),
    (["show", "--since", "2h", "--decision", "refuse"], audit_read, "show", {"since": "2h", "decision": "refuse"}),
    (["grep", "a|b", "d", "--model", "m"], audit_read, "grep", {"pattern": "a|b", "directory": "d", "model": "m"}),
    (["anchor", "--config", "f", "--set", "a=b"], audit_check, "anchor", {"config": "f", "set": ["a=b"]}),
    (["keys", "list"], audit_check, "keys_list", {"config": "gateway.yaml"}),
    (["keys", "export", "--all"], audit_check, "keys_export", {"all": True}),
    (["keys", "rotate"], audit_check, "keys_rotate", {}),
]  # fmt: skip


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway")
    audit.add_audit(parser.add_subparsers(required=True))
    return parser


@pytest.mark.parametrize(("words", "module", "name", "expected"), CASES)
def test_words_become_one_call(
    parser: argparse.ArgumentParser,
    words: list[str],
    module: object,
    name: str,
    expected: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Namespace] = []
    assert callable(getattr(module, name))

    def noted(namespace: Namespace) -> int:
        given.append(namespace)
        return 7

    monkeypatch.setattr(module, name, noted)
    parsed = parser.parse_args(["audit", *words])
    assert parsed.run(parsed) == 7
    assert expected.items() <= vars(given[0]).items()


@pytest.mark.parametrize(
    "words",
    [
        [], ["nothing"], ["prove"], ["check-proof"], ["grep"], ["keys"], ["show", "--limit", "0"],
        ["show", "--limit", "x"], ["show", "--limit", "9" * 5000], ["show", "--decision", "maybe"],
        ["show", "--kind", "other"], ["verify", "a", "b"],
    ],
)  # fmt: skip
def test_wrong_words_end_with_2_and_a_hint(
    parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["audit", *words])
    assert ended.value.code == 2
    assert "usage: gateway" in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_helps(
    parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["audit", *words, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert " ".join(["gateway audit", *words]) in said
    assert len(said) > 150


def test_help_for_verify_says_what_the_codes_mean(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["audit", "verify", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for words in ("integrity only", "exit codes: 0", "1 something is", "2 the words were wrong"):
        assert words in said


def test_the_words_alone_load_no_library() -> None:
    script = (
        "import argparse, sys\n"
        "from gateway.cli.audit import add_audit\n"
        "add_audit(argparse.ArgumentParser().add_subparsers())\n"
        "print([name for name in ('cryptography', 'msgspec', 'gateway.journal.verify') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
