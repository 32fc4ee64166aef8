"""Forms, whole and in any split: the fields we decide on, where they stand, and what is refused."""

import random

import pytest

from gateway.dialects.multipart import MAX_HEADER_BYTES, MAX_PARTS, MAX_VALUE_BYTES, FormReader, boundary_of
from gateway.errors import InvalidRequest
from tests.fakes.forms import read_form

TYPE = b"multipart/form-data; boundary=b"


def part(head: str, value: bytes = b"x") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def field(name: str, value: bytes = b"x") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value)


FILE = part(
    'Content-Disposition: form-data; name="file"; filename="a\'s.wav"\r\nContent-Type: audio/wav',
    b"RIFF\r\n--\r\n--a\r\n-\r\n--" + bytes(range(256)) * 40,
)
MODEL = field("model", b"whisper-1")
END = b"--b--\r\n"
FORM = FILE + field("prompt", b"") + field("stream", b"true") + field("user", b"ann") + field("n", b"2") + MODEL + END


def read_in_pieces(body: bytes, size: int) -> None:
    form = FormReader(TYPE)
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    form.finish()


def refusal(body: bytes, content_type: bytes = TYPE) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_form(content_type, body)
    return caught.value


@pytest.mark.parametrize("longest", [1, 2, 7, 60, 5000, 1 << 20])
def test_a_form_is_read_in_any_split(longest: int) -> None:
    chance = random.Random(longest)
    form = FormReader(TYPE)
    at = 0
    while at < len(FORM):
        size = chance.randint(1, longest)
        form.feed(FORM[at : at + size])
        at += size
    facts = form.finish()
    assert form.facts is facts
    assert FORM[facts.model_start : facts.model_end] == b"whisper-1"
    assert (facts.model, facts.stream, facts.end_user, facts.form) == ("whisper-1", True, "ann", True)
    assert facts.names == {"file", "prompt", "stream", "user", "n", "model"}
    assert facts.stored == ()
    assert facts.n == 2


@pytest.mark.parametrize(("said", "n"), [(b"0", 1), (b"-3", 1), (b"7", 7), (b"9" * 15, 10**15 - 1)])
def test_how_many_answers_a_form_asks_for(said: bytes, n: int) -> None:
    form = FormReader(TYPE)
    form.feed(MODEL + END)
    assert form.finish().n == 1
    form = FormReader(TYPE)
    form.feed(field("n", said) + MODEL + END)
    assert form.finish().n == n


def test_facts_are_there_with_the_model_and_not_before() -> None:
    form = FormReader(TYPE)
    form.feed(MODEL[:-2])
    before = form.facts
    form.feed(MODEL[-2:] + b"--b")
    after = form.facts
    assert before is None
    assert after is not None
    assert after.model == "whisper-1"


def test_memory_stays_bounded_while_a_file_passes() -> None:
    form = FormReader(TYPE)
    form.feed(MODEL + FILE[:300])
    for _ in range(64):
        form.feed(b"\r\n--" * 4096)
        assert len(form._data) < 64
    form.feed(b"\r\n" + END)
    assert form.finish().model == "whisper-1"


def test_once_released_a_late_decision_is_refused() -> None:
    for late in (MODEL, field("stream", b"true"), field("file_id", b"file-1"), field("Model")):
        form = FormReader(TYPE)
        form.feed(MODEL + FILE[:200])
        form.release()
        with pytest.raises(InvalidRequest):
            form.feed(FILE[200:] + late + END)
    form = FormReader(TYPE)
    form.feed(MODEL + FILE[:200])
    form.release()
    form.feed(FILE[200:] + field("language", b"en") + END)
    assert form.finish().model == "whisper-1"


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        (field("file_id", b"file-1"), ("file_id",)),
        (field("file_ids[]", b"a") + field("file_ids[]", b"b"), ("file_ids[]", "file_ids[]")),
        (field("File_Id", b"a"), ("File_Id",)),
        (field("file_id", b""), ()),
        (field("file_id_note", b"a"), ()),
    ],
)
def test_stored_objects_are_named(fields: bytes, stored: tuple[str, ...]) -> None:
    assert read_form(TYPE, MODEL + fields + END).stored == stored


@pytest.mark.parametrize(
    "body",
    [
        part("content-disposition:form-data;name=model", b"whisper-1") + END,
        part('CONTENT-DISPOSITION: Form-Data ; Name="model"', b"whisper-1") + END,
        part('Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"', b"whisper-1") + END,
        part('Content-Transfer-Encoding: 8bit\r\nContent-Disposition: form-data; name="model"', b"whisper-1") + END,
        MODEL + b"--b--",
        MODEL + END + b"\r\n",
        MODEL + field("timestamp_granularities[]") + field("timestamp_granularities[]") + END,
        MODEL + field("größe") + END,
    ],
)
def test_forms_as_ordinary_clients_make_them(body: bytes) -> None:
    assert read_form(TYPE, body).model == "whisper-1"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "closing boundary"),
        (b"--", "closing boundary"),
        (MODEL, "closing boundary"),
        (MODEL + b"--b", "closing boundary"),
        (MODEL + FILE[:500], "closing boundary"),
        (END, "missing"),
        (FILE + END, "missing"),
        (field("model", b"") + END, "missing"),
        (b"preamble\r\n" + MODEL + END, "begin with its boundary"),
        (b"\r\n" + MODEL + END, "begin with its boundary"),
        (b"--c\r\n" + MODEL[5:] + END, "begin with its boundary"),
        (MODEL.replace(b"\r\n", b"\n") + b"--b--\n", "behind the boundary"),
        (b"--b \r\n" + MODEL[5:] + END, "behind the boundary"),
        (MODEL + END + b"--b\r\n", "closing boundary"),
        (MODEL + END + MODEL + END, "closing boundary"),
        (MODEL + MODEL + END, "twice"),
        (MODEL + field("Model") + END, "must be spelled `model`"),
        (field("MODEL") + END, "must be spelled `model`"),
        (MODEL + field("mod%65l") + END, "must be spelled `model`"),
        (MODEL + field(" model") + END, "must be spelled `model`"),
        (MODEL + field("stream", b"true") + field("stream", b"false") + END, "twice"),
        (MODEL + field("stream", b"yes") + END, "true or false"),
        (MODEL + field("n", b"two") + END, "whole number"),
        (MODEL + field("_charset_", b"utf-7") + END, "_charset_"),
        (field("model", b"a\r\nb") + END, "printable"),
        (field("model", b"\xff") + END, "UTF-8"),
        (field("model", b"m" * 300) + END, "1 to 256"),
        (field("model", b"m" * (MAX_VALUE_BYTES + 1)) + END, "longer than"),
        (field("model", b"m" * (MAX_VALUE_BYTES + 500)), "longer than"),
        (part('Content-Disposition: form-data; name="model"; filename="m"') + END, "plain text"),
        (part('Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name="model"') + END, "plain text"),
        (part('Content-Disposition: form-data; name="x"; name="model"') + END, "exactly one name"),
        (part('Content-Disposition: form-data; name=""') + END, "exactly one name"),
        (part("Content-Disposition: form-data; filename=x") + END, "exactly one name"),
        (part("Content-Disposition: form-data; name*=utf-8''model") + END, "encoded form"),
        (part('Content-Disposition: form-data; name="mod\\el"') + END, "form-data; name"),
        (part('Content-Disposition: attachment; name="model"') + END, "form-data; name"),
        (part('Content-Disposition: form-data, name="model"') + END, "form-data; name"),
        (part('Content-Disposition: form-data; name="model" x') + END, "form-data; name"),
        (part("Content-Type: text/plain") + END, "exactly one content-disposition"),
        (
            part('Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"') + END,
            "exactly one content-disposition",
        ),
        (part('Content-Disposition: form-data;\r\n name="model"') + END, "illegal line"),
        (part('Content-Disposition : form-data; name="model"') + END, "illegal line"),
        (part('Content-Disposition: form-data; name="model"\nx: y') + END, "illegal line"),
        (part('Content-Disposition: form-data; name="mo\x00del"') + END, "illegal line"),
        (b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n' + END, "UTF-8"),
        (b"--b\r\n\r\nx\r\n" + END, "no header"),
        (b"--b\r\nx: " + b"y" * MAX_HEADER_BYTES, "longer than"),
        (field("x") * (MAX_PARTS + 1), "more than"),
    ],
)
def test_refused(body: bytes, message: str) -> None:
    for chunk in (len(body) or 1, 3):
        with pytest.raises(InvalidRequest, match=message):
            read_in_pieces(body, chunk)


def test_a_refusal_names_the_field() -> None:
    assert refusal(MODEL + MODEL + END).param == "model"
    assert refusal(FILE + END).param == "model"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data; charset=utf-8; Boundary="a b:c"', b"a b:c"),
        (b"multipart/form-data;boundary=----WebKitFormBoundaryX7", b"----WebKitFormBoundaryX7"),
        (b"multipart/form-data; boundary=" + b"x" * 70 + b";", b"x" * 70),
    ],
)
def test_boundaries(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=a; boundary=b",
        b'multipart/form-data; boundary="a',
        b'multipart/form-data; boundary="a "',
        b'multipart/form-data; boundary="a\\"b"',
        b"multipart/form-data; boundary=a b",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b"multipart/mixed; boundary=a",
        b"application/json; boundary=a",
        b"multipart/form-data, boundary=a",
        b"multipart/form-data; boundary=\xe9",
        b"",
    ],
)
def test_content_types_without_a_legal_boundary(content_type: bytes) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        boundary_of(content_type)
