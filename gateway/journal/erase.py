"""Erasing people from the journal: their sealing keys are destroyed, and not one byte of the chain changes.

Every row that belongs to an organisation, or to one user in it as user or end user, is overwritten with zeros where it
lies and synced. What was sealed under it (the personal part, the digests of prompt and answer) is from then on noise
to every reader on this host, and `verify` holds as before. Last, writers are told to forget, which each does at its
next poll; people who come back get new keys. An erasure that was cut short is finished by running it again.

Overwriting reaches the files of this directory and no copy of them. Backups and snapshots of the directory, replicas
of the disk, blocks that a flash disk or a copy-on-write file system has put aside, swap and memory images may still
hold the keys; and what was opened before and handed on is out of reach. A row that is made while an erasure runs may
stay; every row made before is gone.
"""

from pathlib import Path

from gateway.journal.keytable import (
    NoSalt,
    Tags,
    UnknownKeyFile,
    count_erasure,
    destroy_rows,
    key_files,
    key_path,
    locked,
    read_salt,
)


class NotErased(Exception):
    """Some keys may be left; the message says which and why. Running it again does what is left.

    `destroyed`: how many are gone for certain. `left`: what was not done, without that number.
    """

    def __init__(self, message: str, left: str = "", destroyed: int = 0) -> None:
        super().__init__(message)
        self.left = left or message
        self.destroyed = destroyed


def erase(sealing_dir: Path, *, org: str, user: str = "") -> int:
    """Destroy the keys of an organisation, or of one user or end user in it; how many there were. Waits for the disk.

    `org` "" is the organisation of keys that name none. Raises NotErased; what could be destroyed then is.
    """
    try:
        with locked(sealing_dir):
            tags = Tags(read_salt(sealing_dir))
            destroyed, left = _destroy(sealing_dir, tags.org(org), tags.user(org, user) if user else b"")
    except (NoSalt, OSError) as error:
        raise NotErased(f"nothing is erased: {error}") from error
    if left:
        told = "; ".join(left)
        message = f"{destroyed} keys or more are destroyed, but: {told}. Mend it and run this again"
        raise NotErased(message, told, destroyed)
    return destroyed


def _destroy(sealing_dir: Path, org_tag: bytes, user_tag: bytes) -> tuple[int, list[str]]:
    """How many rows were destroyed, and what went wrong; one bad file must not save the others."""
    destroyed, left = 0, list[str]()
    for chain, number in key_files(sealing_dir):
        try:
            destroyed += destroy_rows(key_path(sealing_dir, chain, number), org_tag, user_tag)
        except (OSError, UnknownKeyFile) as error:
            left.append(f"keys may be left in {chain}-{number}.keys: {error}")
    try:
        count_erasure(sealing_dir)
    except OSError as error:
        left.append(f"writers that run may hold on to destroyed keys: {error}")
    return destroyed, left
