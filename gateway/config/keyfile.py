"""A million keys in one file, found where they lie: an open-addressed table of digests before msgpack records.

As Python objects a million keys cost 470 MB and 2.7 s in every worker; mapped read-only they are in memory once for
the whole node, and opening costs nothing. The table holds pairs of 64-bit words (first eight digest bytes; offset and
length of the record), at most half full and probed linearly; a second word of 0 is an empty place.

A record's whole digest is compared after decoding it, with `==`. That is safe without constant time: the caller
cannot steer the digest of what it sends towards a wanted prefix without breaking SHA-256, so how long a comparison
runs tells it nothing.

Layout, little-endian: header of 64 bytes (magic, version, keys, table places, table offset, file size, CRC-32 of
what follows the header, CRC-32 of the header), records (u32 length, msgpack KeyRecord), padding to 8, table.
Invariant: a finished file never changes; a new set of keys is a new file.
"""

import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from gateway.config.files import replacing
from gateway.config.keys import KeyRecord

_MAGIC: Final = b"SLUICEKY"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sIIQQQQI")
_CRC: Final = struct.Struct("<I")
_HEADER_BYTES: Final = 64
_LENGTH: Final = struct.Struct("<I")
_LENGTH_BITS: Final = 20
_MAX_LENGTH: Final = (1 << _LENGTH_BITS) - 1
_PLACE_BYTES: Final = 16
_MIN_PLACES: Final = 8
_CHUNK: Final = 1 << 20
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(KeyRecord)


class CorruptKeyFile(Exception):
    """The file is not a whole key file of a version this build reads."""


class DuplicateKey(Exception):
    """Two keys have the same secret; the message names both ids."""


class OversizeKey(Exception):
    """A key's labels and patterns make a record longer than a table entry can say."""


class Header(NamedTuple):
    """What a key file says of itself; `crc` covers everything behind the header and names the content."""

    keys: int
    places: int
    table_at: int
    size: int
    crc: int


class KeyFile:
    """A mapped key file. `find` looks a digest up in place; iteration gives every record in writing order."""

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        """Map the file; `verify` reads all of it and compares the checksum. Raises CorruptKeyFile or OSError."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER_BYTES:
                raise CorruptKeyFile(f"{path.name} is cut short")
            self._map = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
        self.header = _read_header(self._map, path.name)
        if self.header.size != size:
            raise CorruptKeyFile(f"{path.name} has {size} bytes, {self.header.size} were written")
        if verify and _crc_of(self._map) != self.header.crc:
            raise CorruptKeyFile(f"{path.name} does not match its checksum")
        self._bytes = memoryview(self._map)
        self._table = self._bytes[self.header.table_at :].cast("Q")
        self._mask = self.header.places - 1

    def __len__(self) -> int:
        return self.header.keys

    def find(self, digest: bytes) -> KeyRecord | None:
        """The record with this digest, None when there is none. About 2 µs."""
        prefix = int.from_bytes(digest[:8], "little")
        table, mask = self._table, self._mask
        place = prefix & mask
        for _ in range(mask + 1):
            where = table[2 * place + 1]
            if not where:
                return None
            if table[2 * place] == prefix:
                start = where >> _LENGTH_BITS
                record = _DECODER.decode(self._bytes[start : start + (where & _MAX_LENGTH)])
                if record.digest == digest:
                    return record
            place = (place + 1) & mask
        return None

    def __iter__(self) -> Iterator[KeyRecord]:
        offset = _HEADER_BYTES
        for _ in range(self.header.keys):
            start = offset + _LENGTH.size
            offset = start + _LENGTH.unpack_from(self._map, offset)[0]
            yield _DECODER.decode(self._bytes[start:offset])

    def close(self) -> None:
        """Unmap; the object is of no use afterwards."""
        self._table.release()
        self._bytes.release()
        self._map.close()


def build(path: Path, records: Iterable[KeyRecord]) -> Header:
    """Write a key file and put it in place. Raises DuplicateKey; the path is then as it was before.

    Records are streamed: beyond the table (32 bytes a key while building) nothing is held in memory.
    """
    with replacing(path) as file:
        file.write(bytes(_HEADER_BYTES))
        spots, prefixes = _write_records(file, records)
        table_at = file.tell()
        places = _places_for(len(spots))
        file.write(_table(file, spots, prefixes, places))
        file.flush()
        size = file.tell()
        with mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as whole:
            header = Header(len(spots), places, table_at, size, _crc_of(whole))
        file.seek(0)
        file.write(_packed(header))
    return header


def _write_records(file: BinaryIO, records: Iterable[KeyRecord]) -> tuple["array[int]", "array[int]"]:
    spots, prefixes = array("Q"), array("Q")
    at = _HEADER_BYTES
    for record in records:
        packed = _ENCODER.encode(record)
        if len(packed) > _MAX_LENGTH:
            raise OversizeKey(
                f"key {record.id!r} takes {len(packed)} bytes, more than {_MAX_LENGTH}: shorten its labels"
            )
        file.write(_LENGTH.pack(len(packed)) + packed)
        spots.append((at + _LENGTH.size) << _LENGTH_BITS | len(packed))
        prefixes.append(int.from_bytes(record.digest[:8], "little"))
        at += _LENGTH.size + len(packed)
    file.write(bytes(-at % 8))
    return spots, prefixes


def _table(file: BinaryIO, spots: "array[int]", prefixes: "array[int]", places: int) -> "array[int]":
    table = array("Q", bytes(places * _PLACE_BYTES))
    mask = places - 1
    for spot, prefix in zip(spots, prefixes, strict=True):
        place = prefix & mask
        while table[2 * place + 1]:
            if table[2 * place] == prefix:
                _refuse_equal(file, table[2 * place + 1], spot)
            place = (place + 1) & mask
        table[2 * place] = prefix
        table[2 * place + 1] = spot
    return table


def _refuse_equal(file: BinaryIO, first_spot: int, second_spot: int) -> None:
    file.flush()
    first, second = _record_at(file, first_spot), _record_at(file, second_spot)
    if first.digest == second.digest:
        raise DuplicateKey(f"keys {first.id!r} and {second.id!r} have the same secret")


def _record_at(file: BinaryIO, spot: int) -> KeyRecord:
    return _DECODER.decode(os.pread(file.fileno(), spot & _MAX_LENGTH, spot >> _LENGTH_BITS))


def _places_for(count: int) -> int:
    """A power of two that leaves at least half of the places empty."""
    return max(_MIN_PLACES, 1 << (2 * count - 1).bit_length()) if count else _MIN_PLACES


def _packed(header: Header) -> bytes:
    head = _HEADER.pack(_MAGIC, _VERSION, 0, header.keys, header.places, header.table_at, header.size, header.crc)
    return (head + _CRC.pack(zlib.crc32(head))).ljust(_HEADER_BYTES, b"\0")


def _read_header(raw: mmap.mmap, name: str) -> Header:
    head = raw[: _HEADER.size]
    magic, version, _, keys, places, table_at, size, crc = _HEADER.unpack(head)
    if magic != _MAGIC or _CRC.unpack_from(raw, _HEADER.size)[0] != zlib.crc32(head):
        raise CorruptKeyFile(f"{name} is not a key file, or its header is damaged")
    if version != _VERSION:
        raise CorruptKeyFile(f"{name} has version {version}, this build reads {_VERSION}")
    return Header(keys, places, table_at, size, crc)


def _crc_of(raw: mmap.mmap) -> int:
    crc = 0
    for at in range(_HEADER_BYTES, len(raw), _CHUNK):
        crc = zlib.crc32(raw[at : at + _CHUNK], crc)
    return crc
