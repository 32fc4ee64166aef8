"""What must hold inside one struct: an address that can be reached safely, files that exist, times in their order.

Every function yields (path, message, shown value). Files are looked at, not read: whether a certificate fits its key
is known when TLS is set up, whether it is there is known now.
"""

import ipaddress
import os
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from gateway.config import proxy
from gateway.config.problems import Path
from gateway.config.schema import Anchor, Database, Provider, Timeouts, Webhook
from gateway.config.spec import fields

Found = tuple[Path, str, str]
_ORDER: Final = (
    ("connect_s", "total_s"),
    ("first_byte_s", "first_content_s"),
    ("first_byte_s", "total_s"),
    ("first_content_s", "total_s"),
    ("idle_s", "total_s"),
)
_ANCHOR_NEEDS: Final = {"file": ("path",), "s3": ("bucket",), "rfc3161": ("path", "url")}
_MADE_BY_US: Final = ("state_dir", "path")


def check_provider(path: Path, provider: Provider) -> Iterator[Found]:
    """Address, credential, client certificate and proxy of a provider."""
    if provider.base_url:
        fault = _url_fault(provider.base_url, plain=provider.allow_plain_http)
        if fault:
            yield (*path, "base_url"), fault, _without_password(provider.base_url)
    if provider.credential == "own" and provider.api_key is None:
        yield (*path, "api_key"), "is missing: give one, or set `credential: caller` to forward the caller's own", ""
    if provider.credential == "caller" and provider.api_key is not None:
        yield (*path, "api_key"), "would never be used with `credential: caller`: remove one of the two", ""
    if bool(provider.client_cert) != bool(provider.client_key):
        one, other = ("cert", "key") if provider.client_cert else ("key", "cert")
        yield (*path, f"client_{one}"), f"needs `client_{other}` beside it", ""
    if provider.proxy not in ("", proxy.NONE):
        fault = proxy.fault(provider.proxy)
        if fault:
            yield (*path, "proxy"), fault, _without_password(provider.proxy)


def check_anchor(path: Path, anchor: Anchor) -> Iterator[Found]:
    """What each kind of anchor cannot do without, and an authority's address."""
    for name in _ANCHOR_NEEDS[anchor.kind]:
        if not getattr(anchor, name):
            yield (*path, name), f"is missing: an anchor of kind {anchor.kind} needs it", ""
    if bool(anchor.access_key) != bool(anchor.secret_key):
        one, other = ("access", "secret") if anchor.access_key else ("secret", "access")
        yield (*path, f"{one}_key"), f"needs `{other}_key` beside it", ""
    if anchor.url and not anchor.url.startswith(("http://", "https://")):
        yield (*path, "url"), "must be an address such as https://tsa.example.com", anchor.url


def check_database(path: Path, database: Database) -> Iterator[Found]:
    """A database is a Postgres server, or nothing is said."""
    if database.url is not None and not database.url.reveal().startswith(("postgresql://", "postgres://")):
        yield (*path, "url"), "must be postgresql://user:password@host/name; without it SQLite in state_dir is used", ""


def check_webhook(path: Path, webhook: Webhook) -> Iterator[Found]:
    """Where events go: public addresses over TLS, unless private ones are allowed. The address is not shown."""
    fault = _webhook_fault(webhook.url.reveal(), private=webhook.allow_private)
    if fault:
        yield (*path, "url"), fault, ""
    if not webhook.secret.reveal():
        yield (*path, "secret"), "is empty: receivers could not tell our events from anybody's", ""


def _webhook_fault(url: str, *, private: bool) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no number
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
        return "must be an address such as https://hooks.example.com/budgets"
    if parts.username is not None:
        return "must not name a user: events are signed instead"
    if private:
        return ""
    if parts.scheme == "http":
        return "sends events readable over the network: use https://, or say `allow_private: true`"
    return "" if _may_be_public(parts.hostname) else "is not a public address: say `allow_private: true` if it is meant"


def _may_be_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return True  # a name; what it leads to is looked at when an event is sent


def check_timeouts(path: Path, timeouts: Timeouts) -> Iterator[Found]:
    """Limits stated together must not contradict: a part cannot take longer than the whole."""
    for part, whole in _ORDER:
        shorter, longer = getattr(timeouts, part), getattr(timeouts, whole)
        if shorter is not None and longer is not None and shorter > longer:
            yield (*path, part), f"is longer than `{whole}` ({longer}) and would never act: lower it", str(shorter)


def check_files(path: Path, value: msgspec.Struct) -> Iterator[Found]:
    """Files that a struct names exist and can be read by this user."""
    for field in fields(type(value)).values():
        file = getattr(value, field.name)
        if field.spec.mark != "path" or not file or field.name in _MADE_BY_US:
            continue
        if not os.path.isfile(file):  # noqa: PTH113 - names are strings here, and thousands of keys pass by
            yield (*path, field.name), "is not there, or is not a file", file
        elif not os.access(file, os.R_OK):
            yield (*path, field.name), "cannot be read by this user: change its owner or mode", file


def _url_fault(url: str, *, plain: bool) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no number
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or " " in url:
        return "must be an address such as https://api.example.com/v1"
    if parts.username is not None or parts.query or parts.fragment or "?" in url or "#" in url:
        return "must end with its path: no user, query or fragment (a key belongs in `api_key`)"
    if parts.scheme == "http" and not plain and not _loopback(parts):
        return "sends keys and prompts readable over the network: use https://, or say `allow_plain_http: true`"
    return ""


def _loopback(parts: SplitResult) -> bool:
    host = (parts.hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_password(url: str) -> str:
    return "" if "@" in url else url
