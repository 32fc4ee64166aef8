"""What parts share: a place for each target, figures of a sample, remarks that are told at once."""

from pathlib import Path

import pytest

from bench.scaling import stand
from bench.scaling.stand import COST, P99, RATE, Stand
from bench.speed.launch import CannotRun
from bench.speed.progress import Progress
from bench.speed.sections import Settings
from tests.unit.bench_speed.samples import again, sample


def made(folder: Path) -> Stand:
    return Stand(9000, folder, Settings(), 20_000, Progress(1), again())


def test_each_target_has_a_folder_and_a_core(tmp_path: Path) -> None:
    assert made(tmp_path).place("nginx").folder == tmp_path / "nginx"
    assert made(tmp_path).place("nginx").core == 0


def test_a_remark_is_kept_and_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = made(tmp_path)
    told.remark("no `ip` here:\nit is missing")
    assert told.remarks == ["no `ip` here: it is missing"]
    assert "no `ip` here: it is missing" in capsys.readouterr().err


def test_a_sample_is_told_in_figures() -> None:
    found = stand.plain_figures(sample("json", "limited", rps=500, cpu_us=40))
    assert found[COST] == pytest.approx(40)
    assert found[RATE] == 500
    assert P99 in found


def test_wrong_answers_are_no_figures() -> None:
    with pytest.raises(CannotRun, match="json: wrong answers"):
        stand.plain_figures(sample("json", "limited", rps=500, cpu_us=40, errors=1))
