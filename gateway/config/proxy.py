"""Which proxy stands before a provider: the one that is set, the environment's, or none.

The environment is read as curl reads it: `https_proxy` before `HTTPS_PROXY`, exceptions in `no_proxy` or `NO_PROXY`:
names (with everything below them), addresses, networks, each with an optional port, or `*`. Loopback is never
proxied, and neither is plain http, which goes to loopback or to a network that was declared trusted.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

NONE: Final = "none"
_PORT: Final = re.compile(r"(.*):(\d{1,5})\Z")


def fault(url: str) -> str:
    """Why the URL is no usable proxy, "" when it is; never with the URL, which may have a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/") or parts.query:
        return f"must be http://host:port, `{NONE}`, or empty for HTTPS_PROXY and NO_PROXY"
    return ""


def from_environment(env: Mapping[str, str]) -> str:
    """The proxy the environment names for https, "" for none. Raises ValueError where it is not a usable one."""
    url = env.get("https_proxy") or env.get("HTTPS_PROXY") or ""
    if url and "://" not in url:
        url = f"http://{url}"
    why = fault(url) if url else ""
    if why:
        raise ValueError(f"HTTPS_PROXY {why}")
    return url


def proxy_for(setting: str, scheme: str, host: str, port: int, env: Mapping[str, str]) -> str:
    """The proxy's URL for connections to a provider, "" to go straight.

    `setting` is the provider's `proxy`. Raises ValueError where the environment's is needed and not usable.
    """
    if setting == NONE:
        return ""
    if setting:
        return setting
    if scheme != "https" or _is_loopback(host) or _excepted(host, port, env):
        return ""
    return from_environment(env)


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower().rstrip(".") == "localhost" if address is None else address.is_loopback


def _excepted(host: str, port: int, env: Mapping[str, str]) -> bool:
    listed = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return any(_covers(entry, host.lower().rstrip("."), port) for entry in re.split(r"[,\s]+", listed.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    with_port = _PORT.match(entry) if entry.count(":") == 1 or entry.startswith("[") else None
    if with_port is not None:
        if int(with_port[2]) != port:
            return False
        entry = with_port[1]
    address = _address(host)
    if address is not None:
        return _network_has(entry.strip("[]"), address)
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _network_has(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
