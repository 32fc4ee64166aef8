"""Bodies are read leniently where a provider is lenient, and refused in its words where it is not."""

import pytest

from bench.sim.forms import read
from bench.sim.wire import Refused, Request


def asked(body: bytes, kind: str = "application/json", *, missing: int = 0) -> Request:
    headers = [("content-type", kind)]
    return Request("POST", "/v1/x", headers, body=body, body_len=len(body) + missing)


def test_a_json_object_is_its_fields() -> None:
    assert read(asked(b'{"model":"m"}')).fields == {"model": "m"}
    assert read(asked(b"")).fields == {}


def test_a_lone_surrogate_passes() -> None:
    assert read(asked(rb'{"model":"m","x":"\ud800"}')).fields["model"] == "m"


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read(asked(body))
    assert refused.value.status == 400


def test_a_body_too_long_to_keep_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read(asked(b"{}", missing=1))
    assert refused.value.status == 413


@pytest.mark.parametrize("boundary", ["B", '"B"'])
def test_a_form_is_its_fields_and_the_sizes_of_its_files(boundary: str) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        b"12\r\n45\r\n"
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--B--\r\n'
    )
    form = read(asked(body, f"multipart/form-data; boundary={boundary}"))
    assert form.fields == {"model": "whisper-1"}
    assert form.files == {"file": 6}


def test_a_form_without_boundary_is_refused() -> None:
    with pytest.raises(Refused, match="boundary"):
        read(asked(b"x", "multipart/form-data"))
