"""Anchoring in a bucket with object lock, at any service that speaks S3: an object a manifest, locked until its time.

    s3://<bucket>/<prefix><node>/<n>.json

The lock is of mode COMPLIANCE: nobody, the account's owner included, shortens it or removes the object before. The
object is written only if there is none of that name, so a second manifest of one number is refused and reported.

Invariant: an error says what to do about it; credentials enter no message. Left out: making the bucket, which takes
rights that a gateway should not have.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.base import AnchorFailed, extra

CONNECT_S: Final = 5
READ_S: Final = 15
ATTEMPTS: Final = 2
_MAX_BYTES: Final = 1024 * 1024
_EXISTS: Final = "PreconditionFailed"
_FIXES: Final = {
    "NoSuchBucket": "make the bucket, with object lock, or put the name right",
    "NoSuchKey": "it was never put there, or somebody hid it behind a delete marker: look at the object's versions",
    "InvalidRequest": "does the bucket have object lock? A new one can be made with it",
    "AccessDenied": "allow s3:PutObject, s3:PutObjectRetention and s3:GetObject on these objects",
}


class S3Anchor:
    """An anchor of kind s3."""

    def __init__(self, settings: AnchorSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._now = now
        self._made: Any = None
        self.name = f"s3 {settings.bucket}/{settings.prefix}"

    def put(self, head: bytes, n: int, node: str) -> str:
        """Write the object, locked for `keep_days`. Raises AnchorFailed."""
        key = self._key(n, node)
        until = self._now() + timedelta(days=self._settings.keep_days)
        try:
            answer = self._client().put_object(
                Bucket=self._settings.bucket,
                Key=key,
                Body=head,
                ContentType="application/json",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=until,
                IfNoneMatch="*",
            )
        except AnchorFailed:
            raise
        except Exception as error:
            if _code_of(error) == _EXISTS:
                return self.check(head, n, node)
            raise self._failed(key, error) from error
        return self._where(key, answer)

    def check(self, head: bytes, n: int, node: str) -> str:
        """Where the object is, if it holds this manifest. Raises AnchorFailed."""
        key = self._key(n, node)
        try:
            answer = self._client().get_object(Bucket=self._settings.bucket, Key=key)
            found = answer["Body"].read(_MAX_BYTES)
        except AnchorFailed:
            raise
        except Exception as error:
            raise self._failed(key, error) from error
        if found != head:
            raise AnchorFailed(
                f"{self._address(key)} holds another manifest of the number {n}: this journal was written anew or cut "
                "back after that one was signed, or a copy of this node runs elsewhere"
            )
        return self._where(key, answer)

    def _client(self) -> Any:  # noqa: ANN401 - as `extra`
        if self._made is None:
            settings, config = self._settings, extra("botocore.config", "s3")
            access, secret = settings.access_key, settings.secret_key
            self._made = (
                extra("boto3", "s3")
                .session.Session()
                .client(
                    "s3",
                    endpoint_url=settings.url or None,
                    region_name=settings.region or None,
                    aws_access_key_id=None if access is None else access.reveal(),
                    aws_secret_access_key=None if secret is None else secret.reveal(),
                    config=config.Config(
                        connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": ATTEMPTS}
                    ),
                )
            )
        return self._made

    def _failed(self, key: str, error: Exception) -> AnchorFailed:
        fix = _FIXES.get(_code_of(error), "")
        return AnchorFailed(f"{self._address(key)}: {error}{f': {fix}' if fix else ''}")

    def _key(self, n: int, node: str) -> str:
        return f"{self._settings.prefix}{node}/{n}.json"

    def _address(self, key: str) -> str:
        return f"s3://{self._settings.bucket}/{key}"

    def _where(self, key: str, answer: dict[str, Any]) -> str:
        version = answer.get("VersionId")
        return self._address(key) + (f"?versionId={version}" if version else "")


def _code_of(error: Exception) -> str:
    """The service's word for what is wrong, "" where the error is not the service's."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
