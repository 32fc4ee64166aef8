"""The vendors, in the order the docs list them; importing a module registers nothing."""

from typing import Final

from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.base import Vendor
from gateway.providers.openai import OPENAI

PROVIDERS: Final[tuple[Vendor, ...]] = (OPENAI, ANTHROPIC)
_BY_KIND: Final = {vendor.kind: vendor for vendor in PROVIDERS}


def vendor(kind: str) -> Vendor:
    """The vendor of a `kind`. Raises KeyError; the config's check has refused unknown kinds before."""
    return _BY_KIND[kind]
