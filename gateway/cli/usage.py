"""`gateway usage`: its words and their help. What it does is in `usage_show.py`, loaded when it is wanted."""

import argparse
from typing import Final

from gateway.control.usage_fields import DIMENSIONS, TIMES

_BY: Final = ", ".join([*DIMENSIONS, *TIMES])


def add_usage(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "usage",
        help="show who used what, and what it cost",
        description="Show usage and spend, from the running gateway or else from its database.",
        epilog="examples: gateway usage --by key,model --since 24h;  gateway usage --by day,org --csv > usage.csv",
    )
    parser.add_argument("--config", default="gateway.yaml", metavar="FILE", help="the config (gateway.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: admin.port=9001"
    )
    parser.add_argument("--by", default="model", metavar="NAMES", help=f"one or more of {_BY} (model)")
    parser.add_argument("--since", default="7d", metavar="WHEN", help="7d, 24h, 2026-11-21, 2026-11-21T14:00:00Z (7d)")
    parser.add_argument("--until", default="now", metavar="WHEN", help="likewise (now)")
    for name in DIMENSIONS:
        parser.add_argument(f"--{name}", action="append", metavar="NAME", help=f"only of this {name}; may be repeated")
    parser.add_argument("--limit", type=int, metavar="N", help="rows at most (50; of --json, --csv: all)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--csv", action="store_true", help="comma separated values, for a spreadsheet")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from gateway.cli import usage_show

    return usage_show.run(given)
