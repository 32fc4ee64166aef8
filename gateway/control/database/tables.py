"""The tables, as the newest version has them; `versions/` says how a database gets there, a test that both agree.

`usage_hourly` holds one row for each hour and group, a *group* being node, org, team, key, user, model and target
together. `id` is a hash of the group: its texts may be longer than an index entry may be on Postgres, and a merge of
two groups is then a merge of two ids. Rows lie by hour, so a question about a time reads that time only. Amounts are
sums of whole numbers, never anything else.

There is no table of spend beside it: spend is `sum(cost_microusd)` over the rows asked for, a month of a thousand
busy keys is summed in about a second, and a second table would be one more thing that has to agree to the micro-USD
and has to forget the same people.

`journal_cursors` is how far each reader of a node's chain has got, moved in the transaction of the effect. A
reader's `erasures` count how often users were forgotten under it (`forget.py`).
"""

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text

from gateway.control.usage_fields import MEASURES

METADATA: Final = MetaData()
TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")  # one order everywhere: that of the bytes

USAGE: Final = Table(
    "usage_hourly",
    METADATA,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),  # seconds since the epoch, UTC
    Column("id", LargeBinary, primary_key=True),
    *(Column(name, TEXT, nullable=False) for name in ("node", "org", "team", "key_id", "user", "model", "target")),
    *(Column(name, BigInteger, nullable=False) for name in MEASURES),
    sqlite_with_rowid=False,
)

CURSORS: Final = Table(
    "journal_cursors",
    METADATA,
    *(Column(name, TEXT, primary_key=True) for name in ("reader", "node", "chain")),
    *(Column(name, BigInteger, nullable=False) for name in ("segment", "offset", "seq", "missing", "erasures")),
)
