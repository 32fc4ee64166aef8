"""Control's chain as the plainest writer makes it: every record is on the disk when `write` returns."""

import os
from pathlib import Path

from gateway.journal import layout
from gateway.journal.line import body_of, content_of, genesis, leaf_of, line_of, link, parse, seq_of
from gateway.journal.read import entries
from gateway.record import Record


class ControlChain:
    """The chain in a state_dir, gone on with where it ends; what is torn there is cut."""

    def __init__(self, state_dir: Path) -> None:
        self._journal = layout.journal_of(state_dir)
        node = layout.ensure_node(self._journal)
        (self._journal / layout.CONTROL).mkdir(exist_ok=True)
        self._path = layout.segment_path(self._journal, layout.CONTROL, 1)
        self._path.touch()
        self._seq, self._head, self._size = -1, genesis(node, layout.CONTROL), 0
        for entry in entries(self._journal, layout.CONTROL):
            line = parse(entry.raw)
            self._seq, self._head, self._size = seq_of(line.body), line.hash, entry.after.offset
        os.truncate(self._path, self._size)

    def signed_seq(self) -> int:
        """All that is written is signed."""
        return self._seq

    def write(self, record: Record) -> None:
        """Append a record."""
        body = body_of(self._seq + 1, content_of(record))
        head = link(self._head, leaf_of(body))
        line = line_of(body, head)
        fd = os.open(self._path, os.O_RDWR)
        try:
            os.pwrite(fd, line, self._size)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        self._seq, self._head, self._size = self._seq + 1, head, self._size + len(line)

    def records(self) -> list[Record]:
        """All there are."""
        return [entry.record for entry in entries(self._journal, layout.CONTROL)]
