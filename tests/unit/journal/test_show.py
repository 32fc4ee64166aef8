"""Records in order of time over all chains, told in words that a terminal cannot be hurt by."""

from pathlib import Path

import pytest

from gateway.journal.read import Entry, Place
from gateway.journal.search import Query
from gateway.journal.show import Following, fits_body, listed, newest, plain, told
from gateway.record import Attempt, Kind, Personal, Record, Usage
from tests.fakes.a_journal import AJournal

AT_US = 1_800_000_000_123_456


class Keys:
    """Opens what is sealed as `<user>@<key>`; the key `gone` was erased."""

    def __init__(self) -> None:
        self.asked = 0

    def open(self, record: Record) -> Personal | None:
        return None if record.sealed_by == "gone" else Personal(user=record.sealed, client_ip="10.0.0.1")

    def digest(self, key_id: str, body: bytes) -> str | None:
        self.asked += 1
        return None if key_id == "gone" else f"{key_id}:{body.decode()}"


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Two chains that take turns, over several segments."""
    made = AJournal(tmp_path / "state")
    for turn in range(4):
        for chain in ("w0", "w1"):
            made.roll(chain)
            made.write(chain, 2, exchange_id=f"{turn}")
    return made


def ids(entries: list[Entry]) -> list[str]:
    return [f"{entry.chain}/{entry.segment}/{entry.seq}" for entry in entries]


# --- order ----------------------------------------------------------------------------------------------------------


def test_all_chains_in_the_order_of_time(made: AJournal) -> None:
    entries = list(listed(made.journal, Query()))
    times = [entry.record.at_us for entry in entries]
    assert times == sorted(times)
    assert len(entries) == 24
    assert ids(entries)[:6] == ["w0/1/0", "w0/1/1", "w0/1/2", "w1/1/0", "w1/1/1", "w1/1/2"]


def test_from_a_time_on_older_segments_are_not_read(made: AJournal) -> None:
    entries = list(listed(made.journal, Query(exchange="3")))
    since = entries[0].record.at_us
    for segment in (1, 2):
        made.path("w0", segment).write_bytes(b"rubbish\n")
    assert list(listed(made.journal, Query(exchange="3", since_us=since))) == entries


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 24, 99])
def test_the_newest(made: AJournal, count: int) -> None:
    assert newest(made.journal, Query(), count) == list(listed(made.journal, Query()))[-count:]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_the_newest_that_are_asked_for(made: AJournal, count: int) -> None:
    query = Query(kind="outcome")
    assert newest(made.journal, query, count) == list(listed(made.journal, query))[-count:]
    early = Query(exchange="1")
    assert newest(made.journal, early, count) == list(listed(made.journal, early))[-count:]


def test_for_the_newest_older_segments_are_not_read(made: AJournal) -> None:
    made.path("w0", 1).unlink()
    made.path("w0", 1).mkdir()  # who opened it would fail
    assert len(newest(made.journal, Query(kind="outcome"), 4)) == 4


def test_the_newest_since_a_time(made: AJournal) -> None:
    since = next(listed(made.journal, Query(exchange="2"))).record.at_us
    query = Query(exchange="1", since_us=since)
    assert newest(made.journal, query, 5) == []


def test_the_newest_before_a_place(made: AJournal) -> None:
    following = Following(made.journal, Query())
    before = newest(made.journal, Query(), 3)
    made.write("w0", 2)
    assert newest(made.journal, Query(), 3, following.places) == before


# --- following ------------------------------------------------------------------------------------------------------


def test_what_comes_is_given_once_and_in_order(made: AJournal) -> None:
    following = Following(made.journal, Query(kind="outcome"))
    assert following.more() == []
    made.write("w1")
    made.write("w0")
    made.roll("w1")
    made.write("w1")
    made.write("w7")
    assert ids(following.more()) == ["w1/4/12", "w0/4/12", "w1/5/14", "w7/1/1"]
    assert following.more() == []


def test_a_line_under_way_comes_when_it_is_whole(made: AJournal) -> None:
    following = Following(made.journal, Query())
    made.write("w0")
    path = made.path("w0", 4)
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    assert following.more() == []
    path.write_bytes(content)
    assert ids(following.more()) == ["w0/4/12"]


# --- bodies ---------------------------------------------------------------------------------------------------------


def test_a_body_is_known_by_its_digests() -> None:
    keys = Keys()
    fits = fits_body(keys, b"hello")
    assert fits(Record(Kind.OUTCOME, "x", 0, sealed_by="k1", prompt_digest="k1:hello"))
    assert fits(Record(Kind.OUTCOME, "x", 0, sealed_by="k1", prompt_digest="k1:other", answer_digest="k1:hello"))
    assert not fits(Record(Kind.OUTCOME, "x", 0, sealed_by="k2", prompt_digest="k1:hello"))
    assert not fits(Record(Kind.OUTCOME, "x", 0, sealed_by="gone", prompt_digest="k1:hello"))
    assert not fits(Record(Kind.OUTCOME, "x", 0))
    assert keys.asked == 3  # each key once


# --- words ----------------------------------------------------------------------------------------------------------


def entry(record: Record) -> Entry:
    return Entry("w0", 3, 1234, b"", record, Place(3, 0))


def words(record: Record, opener: Keys | None = None) -> str:
    return told(entry(record), opener)


def test_an_outcome() -> None:
    record = Record(
        Kind.OUTCOME, "req_1", AT_US, org="acme", team="search", key_id="demo", model="gpt", target="one/gpt-1",
        decision="allow", status=200, ending="complete", usage=Usage(1200, 34), cost_microusd=1_006_535,
        duration_us=1_823_111, attempts=(Attempt("one/gpt-1", "ok", 200),),
    )  # fmt: skip
    assert words(record) == (
        "2027-01-15T08:00:00.123Z  w0/3/1234       outcome     acme/search/demo  gpt → one/gpt-1  allow  200  "
        "complete  1,200+34 tokens  $1.006535  1,823 ms  req_1"
    )


def test_a_decision() -> None:
    record = Record(
        Kind.DECISION, "req_1", AT_US, org="acme", agent="bot", key_id="demo", model="gpt", decision="allow"
    )
    assert words(record).split("  ")[-4:] == ["acme/bot/demo", "gpt", "allow", "req_1"]


def test_refusals_that_were_counted() -> None:
    record = Record(
        Kind.OUTCOME, "", AT_US, action="refusals", error="rate_limited", decision="refuse", ending="refused", count=120
    )
    assert words(record).endswith("(nobody known)  refuse  ×120  refused  rate_limited")


def test_what_was_done_to_the_node() -> None:
    record = Record(Kind.ADMIN, "", AT_US, action="key.revoke", subject="demo", actor="ann", detail='{"why":"lost"}')
    assert words(record).endswith('admin       key.revoke  demo  by ann  {"why":"lost"}')


@pytest.mark.parametrize("at_us", [10**18, -(10**17), 10**30])
def test_a_time_that_no_calendar_has(at_us: int) -> None:
    assert words(Record(Kind.ADMIN, "", at_us, action="key.revoke")).startswith(f"{at_us} us  ")


def test_a_damaged_line() -> None:
    damaged = Entry("w0", 3, -1, b"\x1b[2J" * 50, Record(Kind.CHECKPOINT, "", 0), Place(3, 0), "it is no line")
    text = told(damaged)
    assert "damaged     it is no line" in text
    assert len(text) < 500
    assert text.isprintable()


def test_who_it_was_where_somebody_may_know() -> None:
    sealed = Record(Kind.OUTCOME, "x", AT_US, sealed="ann", sealed_by="k1")
    assert "ann" not in words(sealed)
    assert words(sealed, Keys()).endswith("[user ann, ip 10.0.0.1]")
    erased = Record(Kind.OUTCOME, "x", AT_US, sealed="ann", sealed_by="gone")
    assert words(erased, Keys()).endswith("[personal part erased, or its key is not here]")
    assert "[" not in words(Record(Kind.OUTCOME, "x", AT_US), Keys())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gpt-4o → ä 日本", "gpt-4o → ä 日本"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\x9b2J\x7f\u202e", r"\x9b2J\x7f\u202e"),
    ],
)
def test_what_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert shown in words(Record(Kind.OUTCOME, "x", AT_US, model=text))
