"""A form that is all there, read at once."""

from gateway.dialects.base import RequestFacts
from gateway.dialects.multipart import FormReader


def read_form(content_type: bytes, body: bytes) -> RequestFacts:
    """Its facts. Raises InvalidRequest."""
    form = FormReader(content_type)
    form.feed(body)
    return form.finish()
