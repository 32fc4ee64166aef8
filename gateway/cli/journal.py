"""`gateway journal`: its words and their help; what is done is in `journal_work.py`, loaded when it is asked for."""

import argparse
from typing import Final

_HOLD: Final = (
    "From now on no segment with a record of this time is dropped, and nobody's personal data that it may want is "
    "erased. What was dropped before cannot be brought back."
)
_ERASE: Final = (
    "Destroy the keys under which people stand in the journal, and have the usage tables name nobody in their place. "
    "The journal verifies afterwards as before. It cannot be undone."
)


def add_journal(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the others."""
    journal = commands.add_parser("journal", help="show the journal's state, hold records, forget people")
    actions = journal.add_subparsers(title="actions", required=True, metavar="ACTION")
    status = actions.add_parser(
        "status",
        help="chains, sizes, what is signed, who reads it, what is held",
        description="Show how the journal is, from the running gateway or else from its files.",
    )
    status.add_argument("--json", action="store_true", help="one JSON document")
    _does(status, "status")
    _add_hold(actions)
    erase = actions.add_parser(
        "erase",
        help="forget a user, or all users of an organisation",
        description=_ERASE,
        epilog="example: gateway journal erase --tenant acme --user ann@example.org",
    )
    erase.add_argument("--tenant", required=True, metavar="ORG", help="the organisation, as keys name it in `org`")
    erase.add_argument("--user", default="", metavar="USER", help="this user or end user alone (all of them)")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    _does(erase, "erase", acting=True)


def _add_hold(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    hold = actions.add_parser("hold", help="keep records of a time from being dropped, for as long as it takes")
    changes = hold.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = changes.add_parser(
        "add",
        help="hold a time",
        description=_HOLD,
        epilog='example: gateway journal hold add --why "case 17" --from 2026-01-01 --to 2026-03-31',
    )
    add.add_argument("--why", required=True, metavar="TEXT", help="the reason, as it will stand in the journal")
    add.add_argument("--from", dest="since", metavar="WHEN", help="2026-01-01, 2026-01-01T08:00:00Z (the beginning)")
    add.add_argument("--to", dest="until", metavar="WHEN", help="likewise; a day is meant to its end (no end)")
    add.add_argument("--org", default="", metavar="ORG", help="for this organisation alone (all)")
    _does(add, "hold_add", acting=True)
    shown = changes.add_parser("list", help="list the holds in force")
    shown.add_argument("--json", action="store_true", help="one JSON document")
    _does(shown, "hold_list")
    release = changes.add_parser("release", help="end a hold")
    release.add_argument("id", help="the hold's id, from `hold list`")
    _does(release, "hold_release", acting=True)


def _does(parser: argparse.ArgumentParser, what: str, *, acting: bool = False) -> None:
    parser.add_argument("--config", default="gateway.yaml", metavar="FILE", help="the config (gateway.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: admin.port=9001"
    )
    if acting:
        parser.add_argument("--actor", metavar="NAME", help="who asks for this, for the record (your user name here)")
    parser.set_defaults(run=_run, what=what)


def _run(given: argparse.Namespace) -> int:
    from gateway.cli import journal_work

    return journal_work.run(given)
