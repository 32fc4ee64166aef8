"""A million keys in one file, found where they lie: an open-addressed table of digests before msgpack records.

As Python objects a million keys cost 470 MB and 2.7 s in every worker; mapped read-only they are in memory once for
the whole node, and opening costs nothing. The table holds (first eight digest bytes, record offset) in pairs of
64-bit words, at most half full, probed linearly; offset 0 is an empty place.

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
_PLACE_BYTES: Final = 16
_MIN_PLACES: Final = 8
_CHUNK: Final = 1 << 20
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(KeyRecord)


class CorruptKeyFile(Exception):
    """The file is not a whole key file of a version this build reads."""


class DuplicateKey(Exception):
    """Two keys have the same secret; the message names both ids."""


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
            offset = table[2 * place + 1]
            if not offset:
                return None
            if table[2 * place] == prefix:
                record = self._record(offset)
                if record.digest == digest:
                    return record
            place = (place + 1) & mask
        return None

    def __iter__(self) -> Iterator[KeyRecord]:
        offset = _HEADER_BYTES
        for _ in range(self.header.keys):
            yield self._record(offset)
            offset += _LENGTH.size + self._length(offset)

    def close(self) -> None:
        """Unmap; the object is of no use afterwards."""
        self._table.release()
        self._bytes.release()
        self._map.close()

    def _length(self, offset: int) -> int:
        length: int = _LENGTH.unpack_from(self._map, offset)[0]
        return length

    def _record(self, offset: int) -> KeyRecord:
        start = offset + _LENGTH.size
        return _DECODER.decode(self._bytes[start : start + self._length(offset)])


def build(path: Path, records: Iterable[KeyRecord]) -> Header:
    """Write a key file and put it in place. Raises DuplicateKey; the path is then as it was before.

    Records are streamed: beyond the table (32 bytes a key while building) nothing is held in memory.
    """
    with replacing(path) as file:
        file.write(bytes(_HEADER_BYTES))
        offsets, prefixes = _write_records(file, records)
        table_at = file.tell()
        places = _places_for(len(offsets))
        file.write(_table(file, offsets, prefixes, places))
        file.flush()
        size = file.tell()
        with mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as whole:
            header = Header(len(offsets), places, table_at, size, _crc_of(whole))
        file.seek(0)
        file.write(_packed(header))
    return header


def _write_records(file: BinaryIO, records: Iterable[KeyRecord]) -> tuple["array[int]", "array[int]"]:
    offsets, prefixes = array("Q"), array("Q")
    at = _HEADER_BYTES
    for record in records:
        packed = _ENCODER.encode(record)
        file.write(_LENGTH.pack(len(packed)) + packed)
        offsets.append(at)
        prefixes.append(int.from_bytes(record.digest[:8], "little"))
        at += _LENGTH.size + len(packed)
    file.write(bytes(-at % 8))
    return offsets, prefixes


def _table(file: BinaryIO, offsets: "array[int]", prefixes: "array[int]", places: int) -> "array[int]":
    table = array("Q", bytes(places * _PLACE_BYTES))
    mask = places - 1
    for offset, prefix in zip(offsets, prefixes, strict=True):
        place = prefix & mask
        while table[2 * place + 1]:
            if table[2 * place] == prefix:
                _refuse_equal(file, table[2 * place + 1], offset)
            place = (place + 1) & mask
        table[2 * place] = prefix
        table[2 * place + 1] = offset
    return table


def _refuse_equal(file: BinaryIO, first_at: int, second_at: int) -> None:
    file.flush()
    first, second = _record_at(file, first_at), _record_at(file, second_at)
    if first.digest == second.digest:
        raise DuplicateKey(f"keys {first.id!r} and {second.id!r} have the same secret")


def _record_at(file: BinaryIO, offset: int) -> KeyRecord:
    length = _LENGTH.unpack(os.pread(file.fileno(), _LENGTH.size, offset))[0]
    return _DECODER.decode(os.pread(file.fileno(), length, offset + _LENGTH.size))


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
