"""PNG files put together from their chunks: of sizes and contents that no encoder writes."""

import struct
import zlib

__all__ = ["chunk", "png"]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes, rows: bytes | None = None) -> bytes:
    """A PNG whose pixels are zeros: `rows` compressed, or all of them."""
    if rows is None:
        bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth
        packer, line = zlib.compressobj(9), bytes(1 + (width * bits + 7) // 8)
        rows = b"".join([*(packer.compress(line) for _ in range(height)), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
