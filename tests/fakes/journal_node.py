"""A gateway that does not run, with a journal in its state directory: what `gateway journal` finds then."""

from pathlib import Path

from gateway.config.load import load
from gateway.config.schema import Config
from gateway.control.notary import Notary
from gateway.journal import layout
from gateway.journal.findings import Report
from gateway.journal.read import entries
from gateway.journal.seal import Sealer
from gateway.journal.signing import public_keys
from gateway.journal.verify import verify
from gateway.record import Kind, Personal, Record
from tests.fakes.written_journal import WrittenJournal

CONFIG = """\
admin: {port: 0, token: "0123456789abcdef"}
providers: {one: {kind: openai, api_key: provider-secret-1}}
models: {large: {targets: [{provider: one, model: large-1}]}}
keys: [{id: demo, secret: caller-secret-1, org: acme, user: ann}]
exports: [{name: siem, kind: file, path: out.jsonl, personal: opened}]
state_dir: state
"""
DAY_US = 86_400_000_000


class JournalNode:
    """Its config, and a journal with one exchange of ann's and one of bob's, signed."""

    def __init__(self, directory: Path, config: str = CONFIG) -> None:
        self.path = directory / "gateway.yaml"
        self.path.write_text(config)
        self.state_dir = directory / "state"
        self.journal = WrittenJournal(self.state_dir)
        sealer = Sealer(layout.sealing_of(self.state_dir), "w0")
        self.exchanges = list[Record]()
        for user in ("ann", "bob"):
            key = sealer.key("acme", user, "")
            sealed = key.seal(Personal(user=user), "x")
            self.exchanges.append(Record(Kind.OUTCOME, "x", DAY_US, org="acme", sealed=sealed, sealed_by=key.id))
        sealer.close()
        self.journal.chain("w0").segment(DAY_US, *self.exchanges)
        self.journal.chain("control").segment(DAY_US)
        self.sign()

    @property
    def config(self) -> Config:
        return load(self.path)

    def sign(self) -> None:
        """As control does, once."""
        notary = Notary(self.journal.path, layout.signing_of(self.state_dir))
        notary.turn()
        notary.close()

    def told(self) -> list[Record]:
        """The admin records, in order."""
        found = (entry.record for entry in entries(self.journal.path, layout.CONTROL))
        return [record for record in found if record.kind is Kind.ADMIN]

    def verified(self) -> Report:
        """What `gateway audit verify` would say."""
        return verify(self.journal.path, public_keys(layout.signing_of(self.state_dir)), pause=lambda _: None)
