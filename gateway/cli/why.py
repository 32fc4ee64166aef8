"""`gateway why`: its words and their help. What it does is in `why_show.py`, loaded when it is wanted."""

import argparse
from typing import Final

_DESCRIPTION: Final = (
    "Show every limit that a request of a key meets, in the order in which they bind: what is left, what is reserved, "
    "and when the request fits. Nothing is charged. Ends with 0 if the request would be admitted now, 1 if it would be "
    "refused or nobody can tell, 2 if the words are wrong."
)
_EXAMPLES: Final = (
    "examples: gateway why --key search-ui --model small;  "
    "gateway why --key search-ui --model small --tokens 5000 --json"
)


def add_why(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "why",
        help="say why a key is limited, and when its next request gets in",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument("--config", default="gateway.yaml", metavar="FILE", help="the config (gateway.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: admin.port=9001"
    )
    parser.add_argument("--key", required=True, metavar="ID", help="the key's id (not its secret)")
    parser.add_argument("--model", default="", metavar="NAME", help="the model, by the name that callers use")
    parser.add_argument(
        "--tokens", default="", metavar="N", help="tokens it takes (what is usual for an answer without `max_tokens`)"
    )
    parser.add_argument("--output-tokens", default="", metavar="N", help="and those of its answer, beside --tokens")
    parser.add_argument("--path", default="", metavar="PATH", help="the API that is called (/v1/chat/completions)")
    parser.add_argument("--end-user", default="", metavar="NAME", help="as the request names its end user")
    parser.add_argument("--provider", default="", metavar="NAME", help="only attempts at this provider")
    parser.add_argument("--json", action="store_true", help="one JSON document, as GET /v1/limits/explain gives it")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    from gateway.cli import why_show

    return why_show.run(given)
