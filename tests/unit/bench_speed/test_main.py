"""The command line becomes settings, problems become words and a status, and a result its exit status."""

from pathlib import Path

import pytest

from bench import program
from bench.speed import __main__ as speed
from bench.speed.launch import CannotRun
from bench.speed.report import Result
from bench.speed.sections import Sample, Settings
from tests.unit.bench_speed.samples import repeats


def settings(*arguments: str) -> Settings:
    return speed.settings_of(speed.parser().parse_args(arguments))


def test_the_standard_set_is_five_repeats_of_everything() -> None:
    standard = settings()
    assert standard == Settings()
    assert (standard.repeats, standard.hold) == (5, 10_000)
    assert standard.sections == ("json", "sse", "latency", "memory", "start", "workers", "tls")


def test_quick_takes_under_two_minutes() -> None:
    assert speed.expected_s(settings("--quick")) < 120 < speed.expected_s(settings())


def test_quick_leaves_tls_out_unless_it_is_asked_for() -> None:
    assert "tls" not in settings("--quick").sections
    assert settings("--quick", "--only", "tls").sections == ("tls",)


def test_what_the_command_line_says_wins() -> None:
    chosen = settings("--quick", "--repeats", "3", "--seconds", "2.5", "--streams", "50", "--only", "latency,json")
    assert (chosen.repeats, chosen.seconds, chosen.hold, chosen.sections) == (3, 2.5, 50, ("json", "latency"))
    assert chosen.warmup == settings("--quick").warmup


def test_the_subject_is_always_among_the_targets() -> None:
    assert settings("--targets", "nginx,direct", "--subject", "aiohttp").targets == ("direct", "nginx", "aiohttp")


def test_an_unknown_section_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings("--only", "json,cpu")
    assert "unknown: cpu; known: json, sse, latency, memory, start, workers, tls" in capsys.readouterr().err


def result(samples: list[Sample]) -> Result:
    return Result({"date": "2026-01-02"}, Settings(subject="gateway"), samples, [])


@pytest.mark.parametrize(
    ("nginx", "gateway", "status"),
    [
        ([100, 101], [50, 50], speed.MET),
        ([100, 101], [30, 30], speed.MISSED),
        ([100, 150], [30, 30], speed.VOID),  # a void run misses nothing
    ],
)
def test_the_exit_status_tells_met_missed_and_void_apart(nginx: list[float], gateway: list[float], status: int) -> None:
    samples = [
        *repeats("json", "direct", [300, 300]),
        *repeats("json", "nginx", nginx),
        *repeats("json", "gateway", gateway),
    ]
    assert speed.exit_status(result(samples)) == status


def test_settings_of_the_gateway_are_read(tmp_path: Path) -> None:
    path = tmp_path / "extra.yaml"
    path.write_text("journal: {durability: synced}\n")
    assert speed.read_gateway_settings(path) == {"journal": {"durability": "synced"}}
    assert speed.read_gateway_settings(None) == {}


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n"])
def test_settings_that_are_none_are_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "extra.yaml"
    path.write_text(text)
    with pytest.raises(CannotRun, match="--gateway-config"):
        speed.read_gateway_settings(path)
    with pytest.raises(CannotRun, match="No such file"):
        speed.read_gateway_settings(tmp_path / "absent.yaml")


def test_what_cannot_run_is_said_with_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler() -> None:
        raise CannotRun("cc is missing")

    monkeypatch.setattr("bench.speed.native.build", no_compiler)
    assert speed.main(["--quick"]) == program.CANNOT_RUN
    assert "cc is missing" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--repeats", "0"], ["--seconds", "-1"], ["--streams", "0"], ["--rate", "0"]])
def test_wrong_words_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        speed.main(words)
    assert ended.value.code == 2
    assert "at least" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured() -> None:
        raise AssertionError("too late")

    monkeypatch.setattr("bench.speed.native.build", measured)
    (tmp_path / "file").touch()
    assert speed.main(["--out", str(tmp_path / "file")]) == program.CANNOT_RUN
    assert "no folder that may be written to" in capsys.readouterr().err
