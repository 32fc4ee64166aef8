"""What is asked of the service, and what is said when it refuses. A real one stands in tests/integration."""

import io
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.config.schema import Anchor as AnchorSettings
from gateway.config.secrets import Secret
from gateway.journal.anchor import s3 as module
from gateway.journal.anchor.base import AnchorFailed
from gateway.journal.anchor.s3 import S3Anchor
from tests.fakes.manifest_heads import NODE, head

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SETTINGS = AnchorSettings(kind="s3", bucket="audit", prefix="gw/", keep_days=10, secret_key=Secret("hush"))


class Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(f"the service says {code}")
        self.response = {"Error": {"Code": code}}


class Bucket:
    """Stands for the client: notes what is asked, and answers what it is told to."""

    def __init__(self, error: Exception | None = None, found: bytes = b"") -> None:
        self.asked: list[dict[str, Any]] = []
        self.error = error
        self.found = found

    def put_object(self, **asked: object) -> dict[str, Any]:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return {"VersionId": "v1"}

    def get_object(self, **asked: object) -> dict[str, Any]:
        self.asked.append(asked)
        return {"Body": io.BytesIO(self.found)}


def anchor(bucket: Bucket) -> S3Anchor:
    made = S3Anchor(SETTINGS, lambda: NOW)
    made._made = bucket
    return made


def test_the_object_is_locked_and_never_written_over() -> None:
    bucket = Bucket()
    assert anchor(bucket).put(head(), 7, NODE) == f"s3://audit/gw/{NODE}/7.json?versionId=v1"
    assert bucket.asked == [
        {
            "Bucket": "audit",
            "Key": f"gw/{NODE}/7.json",
            "Body": head(),
            "ContentType": "application/json",
            "ObjectLockMode": "COMPLIANCE",
            "ObjectLockRetainUntilDate": datetime(2026, 12, 1, tzinfo=UTC),
            "IfNoneMatch": "*",
        }
    ]


def test_the_same_manifest_there_already_is_as_good() -> None:
    bucket = Bucket(Refused("PreconditionFailed"), found=head())
    assert anchor(bucket).put(head(), 7, NODE) == f"s3://audit/gw/{NODE}/7.json"


def test_another_manifest_there_already_is_told() -> None:
    bucket = Bucket(Refused("PreconditionFailed"), found=head(at_us=1))
    with pytest.raises(AnchorFailed, match="holds another manifest of the number 7: this journal was written anew"):
        anchor(bucket).put(head(), 7, NODE)


@pytest.mark.parametrize(("code", "fix"), [*module._FIXES.items(), ("SlowDown", "the service says SlowDown")])
def test_a_refusal_comes_with_its_fix(code: str, fix: str) -> None:
    with pytest.raises(AnchorFailed) as told:
        anchor(Bucket(Refused(code))).put(head(), 7, NODE)
    assert str(told.value).startswith(f"s3://audit/gw/{NODE}/7.json: the service says {code}")
    assert str(told.value).endswith(fix)
    assert "hush" not in str(told.value)


def test_an_error_that_is_not_the_services() -> None:
    with pytest.raises(AnchorFailed, match=r"7\.json: no route$"):
        anchor(Bucket(OSError("no route"))).put(head(), 7, NODE)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    for call in (S3Anchor(SETTINGS).put, S3Anchor(SETTINGS).check):
        with pytest.raises(AnchorFailed, match=r"boto3 cannot be imported .*pip install 'sluice-gateway\[s3\]'"):
            call(head(), 7, NODE)
