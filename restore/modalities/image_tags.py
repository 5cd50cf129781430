"""TIFF tag directories, read and written byte for byte: the metadata of a TIFF file, and the EXIF block of any other.

An EXIF block *is* a small TIFF file (CIPA DC-008, section 4.5.2), so the same functions carry the camera's data between
all formats. Values stay raw bytes in their own byte order: nothing is interpreted, so nothing is lost or re-typed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

ByteOrder = Literal["<", ">"]

# TIFF 6.0 section 2: bytes per value of each field type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
# Entries that point to a directory of their own: Exif, GPS, Interoperability.
_POINTERS = (0x8769, 0x8825, 0xA005)


@dataclass(frozen=True)
class Directory:
    """Entries `code -> (type, count, raw bytes)` and child directories `code -> Directory`."""

    entries: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)

    def only(self, codes: frozenset[int]) -> Directory:
        """The entries with one of these codes; children are kept."""
        return Directory({c: e for c, e in self.entries.items() if c in codes}, self.children)


def parse(buffer: bytes, order: ByteOrder, offset: int, depth: int = 0) -> Directory:
    """The directory at `offset` of `buffer`. Entries that point outside of it are dropped; no error is raised."""
    found = Directory()
    if offset + 2 > len(buffer):
        return found
    (count,) = struct.unpack_from(order + "H", buffer, offset)
    for start in range(offset + 2, min(offset + 2 + 12 * count, len(buffer) - 11), 12):
        code, kind, length = struct.unpack_from(order + "HHL", buffer, start)
        size = _SIZES.get(kind, 0) * length
        (pointer,) = struct.unpack_from(order + "L", buffer, start + 8)
        if code in _POINTERS:
            if depth < 2 and pointer + 2 <= len(buffer):
                found.children[code] = parse(buffer, order, pointer, depth + 1)
            continue
        at = start + 8 if size <= 4 else pointer
        if size and at + size <= len(buffer):
            found.entries[code] = (kind, length, bytes(buffer[at : at + size]))
    return found


def pack(directory: Directory, order: ByteOrder, offset: int) -> bytes:
    """The bytes of `directory` when they are placed at `offset` of a file; the inverse of `parse`."""
    codes = sorted(directory.entries.keys() | directory.children.keys())
    table = struct.pack(order + "H", len(codes))
    data = b""
    start = offset + 2 + 12 * len(codes) + 4
    for code in codes:
        here = start + len(data)
        if code in directory.children:
            table += struct.pack(order + "HHLL", code, 4, 1, here)
            data += pack(directory.children[code], order, here)
        else:
            kind, length, raw = directory.entries[code]
            table += struct.pack(order + "HHL", code, kind, length)
            if len(raw) <= 4:
                table += raw.ljust(4, b"\0")
            else:
                table += struct.pack(order + "L", here)
                data += raw
        data += b"\0" * (len(data) % 2)  # offsets must be even
    return table + struct.pack(order + "L", 0) + data


def parse_block(block: bytes) -> tuple[Directory, ByteOrder]:
    """The first directory of an EXIF block (or of a classic TIFF file) and its byte order; empty if it is neither."""
    order: ByteOrder = ">" if block[:2] == b"MM" else "<"
    if block[:2] not in (b"II", b"MM") or len(block) < 8 or struct.unpack_from(order + "H", block, 2) != (42,):
        return Directory(), order
    return parse(block, order, struct.unpack_from(order + "L", block, 4)[0]), order


def pack_block(directory: Directory, order: ByteOrder) -> bytes:
    """An EXIF block that holds `directory`."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8) + pack(directory, order, 8)
