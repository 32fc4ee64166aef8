"""A finding says where, what, and what it means; a report sums up without hiding anything."""

import pytest

from gateway.journal.findings import INTEGRITY_ONLY, MEANING, ChainReport, Fault, Finding, Report


def test_every_fault_has_its_meaning() -> None:
    assert set(MEANING) == set(Fault)


@pytest.mark.parametrize(
    ("finding", "where"),
    [
        (Finding(fault=Fault.LINK, message="m", chain="w0", segment=2, seq=7), "w0/2/7"),
        (Finding(fault=Fault.LINK, message="m", chain="w0", segment=2, seq=0), "w0/2/0"),
        (Finding(fault=Fault.CHAIN, message="m", chain="w0"), "w0"),
        (Finding(fault=Fault.MANIFEST, message="m", manifest=0), "manifest 0"),
        (Finding(fault=Fault.NODE, message="m"), "journal"),
    ],
)
def test_a_finding_names_its_place(finding: Finding, where: str) -> None:
    assert finding.where == where
    assert str(finding) == f"{where}: m; {MEANING[finding.fault]}"


def test_a_finding_in_a_file_says_at_which_byte() -> None:
    finding = Finding(fault=Fault.LINE, message="m", chain="w0", segment=1, seq=3, offset=4096)
    assert str(finding).startswith("w0/1/3 at byte 4,096: m; ")


@pytest.mark.parametrize(
    ("first", "last", "signed", "unsigned"), [(0, 9, 9, 0), (0, 9, 5, 4), (0, 9, -1, 10), (6, 9, -1, 4), (0, -1, -1, 0)]
)
def test_lines_behind_the_signed_one_are_counted(first: int, last: int, signed: int, unsigned: int) -> None:
    assert ChainReport(chain="w0", first=first, last=last, signed=signed).unsigned == unsigned


def test_the_sums_of_a_report() -> None:
    one = ChainReport(chain="w0", first=0, last=3, signed=1, lines=4, size_bytes=400)
    two = ChainReport(chain="w1", first=0, last=1, signed=1, lines=2, size_bytes=100)
    report = Report(chains=[one, two])
    assert (report.lines, report.size_bytes, report.unsigned) == (6, 500, 2)


def test_the_verdict() -> None:
    finding = Finding(fault=Fault.NODE, message="m")
    assert Report(integrity_only=False).verdict == "verified"
    assert Report().verdict == INTEGRITY_ONLY
    assert Report(findings=[finding]).verdict == "1 finding"
    assert Report(findings=[finding, finding]).verdict == "2 findings"
    assert not Report(findings=[finding]).ok
