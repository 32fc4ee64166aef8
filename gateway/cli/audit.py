"""`gateway audit`: its words and their help; what they do is in `audit_check.py` and `audit_read.py`, loaded by need.

A journal is named by its directory, by the state_dir it lies in, or by the config of its node; verifying a copy takes
nothing but the directory.
"""

import argparse
import importlib
from typing import Final

_CHECK: Final = "gateway.cli.audit_check"
_READ: Final = "gateway.cli.audit_read"
_DEFAULT_CONFIG: Final = "gateway.yaml"
_MAX_DIGITS: Final = 9

_VERIFY: Final = (
    "Check that a journal is what its node wrote, in one pass over its files, also while it is being written. Without "
    "--public-key the result is `integrity only`: everything fits together, but anybody who can write to the directory "
    "could have made all of it anew."
)
_VERIFY_CODES: Final = (
    "exit codes: 0 nothing is wrong, 1 something is (each finding names the first bad record and what it means), 2 the "
    "words were wrong or there is no journal.  examples: gateway audit verify ./state --public-key node.pub;  gateway "
    "audit verify /backup/journal --public-key 3f… --from anchor.jsonl"
)
_FROM: Final = (
    "start from a manifest that is trusted: a file an anchor wrote (its last manifest counts), or a number or SHA-256; "
    "what it covers is not read again, and it must be in the journal as it is"
)
_KEY: Final = "a key to trust: 64 hex digits, a file of them, or a directory of .pub files; may be repeated"
_DIR: Final = "the journal, or the state_dir it lies in (the state_dir of the config)"


def add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    audit = commands.add_parser("audit", help="verify, prove, read and anchor the journal")
    actions = audit.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_verify(actions)
    _add_prove(actions)
    _add_check_proof(actions)
    _add_show(actions)
    _add_grep(actions)
    _add_anchor(actions)
    _add_keys(actions)


def _add_verify(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "verify",
        help="check that nothing was changed, moved, added or removed",
        description=_VERIFY,
        epilog=_VERIFY_CODES,
    )
    _directory(parser)
    _public_key(parser)
    parser.add_argument("--from", dest="since", metavar="CHECKPOINT", help=_FROM)
    parser.add_argument("--progress", action="store_true", help="draw the bar even where no terminal is")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    _does(parser, _CHECK, "verify")


def _add_prove(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "prove",
        help="print the proof that a record is in a signed manifest",
        description="Print a proof a line: JSON that `check-proof` checks with nothing else at hand. An exchange has "
        "a record of its decision and one of its outcome, so it has two.",
        epilog="example: gateway audit prove 5a…/w0/3/1234 ./state > proof.json",
    )
    parser.add_argument("id", metavar="ID", help="node/chain/segment/seq (the node may be left out), or an exchange's")
    _directory(parser)
    _public_key(parser)
    _does(parser, _CHECK, "prove")


def _add_check_proof(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "check-proof",
        help="check a proof, without any journal",
        description="Check proofs that `prove` printed. Without --public-key a proof is checked by the key it brings, "
        "which shows no more than that it is whole: compare the key's id with one that you trust.",
    )
    parser.add_argument("file", metavar="FILE", help="the proof; - reads it from standard input")
    _public_key(parser)
    _does(parser, _CHECK, "check_proof")


def _add_show(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "show",
        help="print records as a person reads them",
        description="Print records, a line each, oldest first: when, chain/segment/seq, what sort, who, model and "
        "target, how it went. Times are UTC.",
        epilog="examples: gateway audit show --since 1h --decision refuse;  gateway audit show --key demo --follow",
    )
    _directory(parser)
    _filters(parser)
    _does(parser, _READ, "show")


def _add_grep(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "grep",
        help="print the records whose line a pattern matches",
        description="Print the records whose JSON, as it stands in the journal, matches a regular expression. Ends "
        "with 1 when there are none.",
        epilog="example: gateway audit grep 'upstream_(timeout|reset)' --since 24h",
    )
    parser.add_argument("pattern", metavar="PATTERN", help="a regular expression, as Python has them")
    _directory(parser)
    _filters(parser)
    _does(parser, _READ, "grep")


def _add_anchor(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "anchor",
        help="show the newest manifest where the config says, now",
        description="Put the newest manifest at every anchor of journal.anchors, so that a journal which is cut back "
        "as a whole can be told from one that was not.",
    )
    _config(parser)
    _does(parser, _CHECK, "anchor")


def _add_keys(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = actions.add_parser("keys", help="show, export and change the keys that sign")
    changes = keys.add_subparsers(title="actions", required=True, metavar="ACTION")
    shown = changes.add_parser("list", help="list the public keys there are, and which one signs")
    export = changes.add_parser(
        "export",
        help="print public keys for whoever verifies",
        description="Print the public key that signs now, for --public-key; keep it where this node cannot change it.",
    )
    export.add_argument("--all", action="store_true", help="every public key there has been, not only the current one")
    rotate = changes.add_parser(
        "rotate",
        help="have the next manifest hand over to a new key",
        description="Ask for a new signing key. The next manifest names it and is signed by both; after that the old "
        "one is destroyed. Either verifies the whole journal.",
    )
    for parser, what in ((shown, "keys_list"), (export, "keys_export"), (rotate, "keys_rotate")):
        _config(parser)
        _does(parser, _CHECK, what)


# --- options that several have --------------------------------------------------------------------------------------


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", metavar="DIR", help=_DIR)
    _config(parser)


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=_DEFAULT_CONFIG, metavar="FILE", help=f"the config ({_DEFAULT_CONFIG})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: state_dir=/srv/state"
    )


def _public_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--public-key", action="append", default=[], metavar="K", help=_KEY)


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", default="", metavar="ID", help="of this key")
    parser.add_argument("--org", default="", metavar="NAME", help="of this organisation")
    parser.add_argument("--team", default="", metavar="NAME", help="of this team")
    parser.add_argument("--model", default="", metavar="NAME", help="asked for, or answered by, this model")
    parser.add_argument("--decision", choices=["allow", "refuse"], default="", help="that were decided so")
    parser.add_argument(
        "--kind", choices=["decision", "outcome", "admin", "mode", "checkpoint"], default="", help="of this kind"
    )
    parser.add_argument("--error", default="", metavar="CODE", help="that ended with this error")
    parser.add_argument("--exchange", default="", metavar="ID", help="of this exchange (x-request-id)")
    parser.add_argument("--since", default="", metavar="WHEN", help="2h, 7d, 2026-11-21, 2026-11-21T14:00:00Z")
    parser.add_argument("--until", default="", metavar="WHEN", help="likewise")
    parser.add_argument(
        "--unfinished",
        action="store_true",
        help="decisions without an outcome whose worker writes no more: how these requests ended is not known",
    )
    parser.add_argument("--body", metavar="FILE", help="whose prompt or answer was exactly the bytes of this file")
    parser.add_argument("--personal", action="store_true", help="open sealed parts with the keys of the state_dir")
    parser.add_argument("--limit", type=_positive, metavar="N", help="the newest N of them (--follow: 10, else all)")
    parser.add_argument("--follow", action="store_true", help="go on with what is written from now on")
    parser.add_argument("--json", action="store_true", help="the lines as they stand in the journal")


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > _MAX_DIGITS or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _does(parser: argparse.ArgumentParser, module: str, name: str) -> None:
    """Have a command run a function of a module that is imported only then."""

    def run(given: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(module), name)(given)
        return code

    parser.set_defaults(run=run)
