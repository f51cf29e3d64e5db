"""Seeded mutations of a valid file: bits, cuts, splices, words of the format, numbers too large, nesting too deep."""

import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

__all__ = ["mutate"]

NUMBERS = (
    b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"0x7fffffff", b"2147483648", b"18446744073709551616", b"9" * 400, b"1e-400",
    b"-0", b"1.5", b"true", b"null", b"[]", b"{}", b'""', b"'", b"'\\", b"00", b"1_000",
)  # fmt: skip
WORDS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc3\x28", b"\xed\xa0\x80", b"\\ud800", b"\r", b"\t", b"../", b"/etc/passwd", b"%s%n",
    b"{0.__class__}", b"!!python/object/apply:os.system [echo]", b"&a [*a]", b"*a", b"<<: *a", b"&x;", b"__proto__",
    b"<!ENTITY x SYSTEM 'file:///etc/passwd'>", b"__class__", b"cos\nsystem\n(S'echo'\ntR.", b"=1+1", b"\xe2\x80\xae",
    b"\xf0\x9f\x92\xa9", b"a" * 5000,
)  # fmt: skip
INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
Edit = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def mutate(seed: str, data: bytes, words: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """One to four edits of `data`, the same for the same seed. `words` of the format; `others`: files to splice with."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if others and chance.random() < 0.05:
            data = _splice(chance, data, chance.choice(others))
        else:
            data = chance.choice(EDITS)(chance, data, words)
    return data


def _place(chance: random.Random, data: bytes) -> int:
    """Anywhere, but often in the first bytes, where formats keep their headers, or the last."""
    last = max(0, len(data) - 1)
    return chance.choice((chance.randint(0, last), chance.randint(0, min(last, 64)), chance.randint(max(0, last - 64), last)))


def _bits(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if changed:
            changed[_place(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    start, length = _place(chance, data), chance.choice((1, 2, 4, 8, 64))
    filling = chance.choice((b"\0", b"\xff", b" ", bytes([chance.randrange(256)])))
    return data[:start] + filling * length + data[start + length :]


def _integer(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """A number of a binary header."""
    start, layout = _place(chance, data), chance.choice(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q"))
    number = chance.choice(INTEGERS) & (2 ** (8 * struct.calcsize(layout)) - 1)
    return data[:start] + struct.pack(layout, number) + data[start + struct.calcsize(layout) :]


def _cut(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    place = _place(chance, data)
    return chance.choice((data[:place], data[place:], data[:place] + data[place + chance.choice((1, 4, 16, 200)) :]))


def _repeat(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    start = _place(chance, data)
    part = data[start : start + chance.choice((1, 4, 30, 300))]
    return data[:start] + part * chance.choice((2, 3, 50)) + data[start:]


def _insert(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    place, word = _place(chance, data), chance.choice((*WORDS, *words, *words))
    return data[:place] + word + data[place + chance.choice((0, 0, len(word))) :]


def _number(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Another value for a number in a text."""
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:100_000]))
    if not numbers:
        return _insert(chance, data, words)
    match = chance.choice(numbers)
    return data[: match.start()] + chance.choice(NUMBERS) + data[match.end() :]


def _value(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Another value for a quoted text, of another type."""
    texts = list(re.finditer(rb'"[^"\n]{0,200}"', data[:100_000]))
    if not texts:
        return _number(chance, data, words)
    match = chance.choice(texts)
    return data[: match.start()] + chance.choice((*NUMBERS, b'"' + chance.choice(WORDS) + b'"')) + data[match.end() :]


def _nest(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    place, depth = _place(chance, data), chance.choice((20, 1000, 100_000))
    opening, closing = chance.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>"), (b"- ", b""), (b"(", b")"), (b"? ", b""))
    )
    return data[:place] + opening * depth + b"1" + closing * depth + data[place:]


def _lines(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    if chance.random() < 0.5:
        del lines[a]
    return b"\n".join(lines)


def _packed(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """A change inside a zlib stream, packed again: what checks alone the checksum does not see."""
    start = data.find(b"\x78\x9c")
    try:
        unpacker = zlib.decompressobj()
        inner = unpacker.decompress(data[start:], 2**22)
    except zlib.error:
        return _bits(chance, data, words)
    changed = chance.choice((_bits, _cut, _repeat, _integer))(chance, inner, words)
    return data[:start] + zlib.compress(changed) + unpacker.unused_data


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(chance, data)] + other[_place(chance, other) :]


EDITS: tuple[Edit, ...] = (
    _bits, _bits, _overwrite, _integer, _integer, _cut, _repeat, _insert, _insert, _number, _number, _value, _value, _nest,
    _lines, _packed,
)  # fmt: skip
