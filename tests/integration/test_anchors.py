"""Anchors against what they are for: a bucket with object lock and a time stamping authority, both asked over HTTP."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

from gateway.config.schema import Anchor as AnchorSettings
from gateway.config.schema import Config, Journal
from gateway.config.secrets import Secret
from gateway.control.anchoring import anchor_now
from gateway.control.notary import Notary
from gateway.journal import layout
from gateway.journal.anchor.base import Anchor, AnchorFailed
from gateway.journal.anchor.registry import anchor_of
from gateway.journal.manifest import is_signed, last_line, parse
from gateway.journal.signing import public_keys
from tests.fakes.chain_files import ChainFiles
from tests.fakes.manifest_heads import NODE, head
from tests.fakes.timestamp_authority import Answer, TimestampAuthority

pytestmark = pytest.mark.slow
ACCESS, SECRET = Secret("AKIDEXAMPLE"), Secret("a secret key of nobody")
REGION = "eu-west-1"


# --- a bucket -------------------------------------------------------------------------------------------------------


class Service:
    """An S3 service on this machine, with a bucket that has object lock and one that has none."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=ACCESS.reveal(),
            aws_secret_access_key=SECRET.reveal(),
        )
        for name, locked in (("audit", True), ("plain", False)):
            self.client.create_bucket(
                Bucket=name,
                ObjectLockEnabledForBucket=locked,
                CreateBucketConfiguration={"LocationConstraint": REGION},
            )

    def settings(self, bucket: str = "audit", url: str = "") -> AnchorSettings:
        return AnchorSettings(
            kind="s3",
            url=url or self.url,
            bucket=bucket,
            prefix="gw/",
            region=REGION,
            keep_days=30,
            access_key=ACCESS,
            secret_key=SECRET,
        )

    def anchor(self, bucket: str = "audit", url: str = "") -> Anchor:
        return anchor_of(self.settings(bucket, url))


@pytest.fixture
def service() -> Iterator[Service]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with urlopen(Request(f"{url}/moto-api/reset", method="POST")):  # noqa: S310 - what it kept in this process
        made = Service(url)
    yield made
    made.client.close()
    server.stop()


def test_a_manifest_in_a_bucket_cannot_be_removed_or_written_over(service: Service) -> None:
    where = service.anchor().put(head(), 7, NODE)
    address, _, version = where.partition("?versionId=")
    assert address == f"s3://audit/gw/{NODE}/7.json"
    found = service.client.get_object(Bucket="audit", Key=f"gw/{NODE}/7.json")
    assert found["Body"].read() == head()
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert 29 <= (found["ObjectLockRetainUntilDate"] - found["LastModified"]).days <= 30
    with pytest.raises(ClientError, match="AccessDenied"):
        service.client.delete_object(Bucket="audit", Key=f"gw/{NODE}/7.json", VersionId=version)
    assert service.anchor().put(head(), 7, NODE).startswith(address)
    with pytest.raises(AnchorFailed, match="holds another manifest of the number 7"):
        service.anchor().put(head(at_us=1), 7, NODE)
    assert service.anchor().check(head(), 7, NODE) == where
    versions = service.client.list_object_versions(Bucket="audit")["Versions"]
    assert len(versions) == 1


def test_what_is_hidden_or_missing_in_a_bucket_is_told(service: Service) -> None:
    service.anchor().put(head(), 7, NODE)
    service.client.delete_object(
        Bucket="audit", Key=f"gw/{NODE}/7.json"
    )  # a delete marker: allowed, and the lock holds
    for n in (7, 8):
        with pytest.raises(AnchorFailed, match=r"NoSuchKey.*: it was never put there, or somebody hid it"):
            service.anchor().check(head(n), n, NODE)
    versions = service.client.list_object_versions(Bucket="audit")["Versions"]
    assert [version["Key"] for version in versions] == [f"gw/{NODE}/7.json"]


@pytest.mark.parametrize(
    ("bucket", "said"),
    [("plain", "ObjectLockConfiguration.*does the bucket have object lock"), ("nowhere", "make the bucket")],
)
def test_a_bucket_that_will_not_do_is_told_with_the_fix(service: Service, bucket: str, said: str) -> None:
    with pytest.raises(AnchorFailed, match=said):
        service.anchor(bucket).put(head(), 7, NODE)


def test_a_service_that_is_not_there(service: Service) -> None:
    with pytest.raises(AnchorFailed, match="Could not connect to the endpoint URL") as told:
        service.anchor(url="http://127.0.0.1:9").put(head(), 7, NODE)
    assert SECRET.reveal() not in str(told.value)


# --- an authority ---------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimestampAuthority]:
    with TimestampAuthority(tmp_path / "tsa") as made:
        yield made


def settings_of(authority: TimestampAuthority, path: Path, url: str = "") -> AnchorSettings:
    return AnchorSettings(kind="rfc3161", url=url or authority.url, path=str(path), ca_file=authority.ca_file)


def test_an_authority_stamps_and_openssl_agrees(authority: TimestampAuthority, tmp_path: Path) -> None:
    anchor = anchor_of(settings_of(authority, tmp_path / "tokens"))
    where = anchor.put(head(), 7, NODE)
    token = tmp_path / "tokens" / NODE / "7.tsr"
    assert where.startswith(f"{token} (")
    verify = ["openssl", "ts", "-verify", "-in", str(token), "-CAfile", authority.ca_file, "-data"]
    assert subprocess.run([*verify, token.with_suffix(".json")], check=False, capture_output=True).returncode == 0
    assert anchor.put(head(), 7, NODE) == anchor.check(head(), 7, NODE) == where
    assert authority.asked == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(b"gone", 404, "text/plain"), "answers with status 404: is this its address"),
        (Answer(b"busy", 503, "text/plain"), "answers with status 503"),
        (Answer(b"<html>welcome</html>", 200, "text/html"), "answers with no token"),
        (Answer(bytes(70_000)), "larger than 65536 bytes"),
    ],
)
def test_an_authority_that_answers_something_else(
    authority: TimestampAuthority, tmp_path: Path, answer: Answer, said: str
) -> None:
    authority.answer = lambda _: answer
    with pytest.raises(AnchorFailed, match=said):
        anchor_of(settings_of(authority, tmp_path / "tokens")).put(head(), 7, NODE)
    assert not (tmp_path / "tokens").exists()


def test_an_authority_that_is_not_there(authority: TimestampAuthority, tmp_path: Path) -> None:
    with pytest.raises(AnchorFailed, match=r"http://127\.0\.0\.1:9: it cannot be asked: .*refused"):
        anchor_of(settings_of(authority, tmp_path, "http://127.0.0.1:9")).put(head(), 7, NODE)


def test_an_authority_that_says_nothing(
    authority: TimestampAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.anchor.rfc3161.TIMEOUT_S", 0.05)
    release = authority.hold()
    try:
        with pytest.raises(AnchorFailed, match=r"it cannot be asked: .*timed out"):
            anchor_of(settings_of(authority, tmp_path)).put(head(), 7, NODE)
    finally:
        release()


# --- all of them ----------------------------------------------------------------------------------------------------


def test_a_real_journals_newest_manifest_at_every_anchor(
    service: Service, authority: TimestampAuthority, tmp_path: Path
) -> None:
    journal, keys = tmp_path / "state/journal", tmp_path / "state/signing"
    chain = ChainFiles(journal, node=layout.ensure_node(journal))
    notary = Notary(journal, keys)
    for _ in range(3):
        chain.append(5)
        notary.turn()
    notary.close()
    audit = tmp_path / "audit"
    anchors = (
        AnchorSettings(kind="file", path=str(audit)),
        service.settings(),
        settings_of(authority, tmp_path / "tokens"),
    )
    results = anchor_now(Config(journal=Journal(anchors=anchors)), journal)
    assert [(result.n, result.problem) for result in results] == [(3, "")] * 3
    line = last_line(journal)
    assert line is not None
    manifest = parse(line)
    assert is_signed(manifest, line, public_keys(keys)[manifest.key])
    key = f"gw/{chain.node}/3.json"
    held = [
        Path(results[0].where).read_bytes().rstrip(b"\n"),
        service.client.get_object(Bucket="audit", Key=key)["Body"].read(),
        (tmp_path / "tokens" / chain.node / "3.json").read_bytes(),
    ]
    assert held == [line] * 3
    assert [anchor_of(each).check(line, 3, chain.node) for each in anchors] == [result.where for result in results]
