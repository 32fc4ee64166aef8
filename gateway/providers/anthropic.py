"""Anthropic's own API.

Its SDKs take a base URL without `/v1`, so both spellings are understood. An exhausted account is answered with 400
and a sentence on the credit balance, which is our trouble and not the caller's. Source: docs.anthropic.com (API
reference: versioning, errors).
"""

from typing import Final

from gateway.providers.base import HeaderPairs, Vendor, Verdict, judge_status

_BAD_REQUEST: Final = 400


def _credential(api_key: str) -> HeaderPairs:
    return ((b"x-api-key", api_key.encode("latin-1")),)


def _base_path(path: str) -> str:
    return path if path.endswith("/v1") else path + "/v1"


def _judge(status: int, body: bytes) -> Verdict:
    if status == _BAD_REQUEST and b"credit balance is too low" in body:
        return Verdict.OURS
    return judge_status(status)


ANTHROPIC: Final = Vendor(
    kind="anthropic",
    dialect="anthropic",
    base_url="https://api.anthropic.com",
    credential=_credential,
    base_path=_base_path,
    default_headers=((b"anthropic-version", b"2023-06-01"),),
    request_id_header=b"request-id",
    judge=_judge,
)
