"""Whether a text holds an API key, as it is or disguised: so that no server gets it into results, logs or messages.

Both sides are reduced to lower-case letters and digits, which drops case, spaces, line breaks, separators, invisible signs and
quotes. Escapes of JSON, URLs and HTML are resolved first. Then the text holds the key where it has a piece of it

    as it is, reversed or in ROT13                    8 characters in a row with a digit among them, else 16
    in base64 or base32, from any byte on             12
    in hexadecimal digits                             16, of 8 characters
    in decimal, octal or binary character codes       of 8 characters
    in base64, base32 or hexadecimal digits twice     as once

or words that are pieces of the key of at least 4 characters, in whatever order, and two thirds of it together; a quarter of it
must be words with a digit, since ordinary words may be part of a key that a person has chosen.

A server that wants to can always find another disguise. So this guards against servers that are careless, not against those
that are clever: the key goes to none that is not trusted with it.
"""

import base64
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

__all__ = ["MIN_SECRET_CHARACTERS", "KeyGuard"]

MIN_SECRET_CHARACTERS = 8  # shorter keys ("EMPTY", "ollama") are placeholders and may occur in any text
WITHHELD = "[withheld: the server's words hold the API key in disguise]"
PIECE, LETTERS_PIECE = 8, 16  # letters alone may be an ordinary word
ENCODED_PIECE = 12  # of base64 and base32: 9 and 7 bytes
MIN_WORD, WORDS_SHARE, DIGITS_SHARE = 4, 2 / 3, 1 / 4
MAX_ESCAPES = 6  # one inside the other
CODES = {"d": 16, "03d": 24, "o": 16, "03o": 24, "08b": 64}  # formats of character codes → the digits of 8 characters, at least

PREFIX = re.compile(r"(?:[a-z]{2,4}[-_])+")
BLANKS = re.compile(r"\\+[nrtbfv](?![0-9a-f]{2})")  # escaped line breaks and the like
ESCAPED = re.compile(r"\\+u([0-9a-f]{4})|(?:\\+x|%|0x|u\+?00|\\+u\{0*)([0-9a-f]{2})[},]?", re.IGNORECASE)
Pieces = dict[int, set[str]]  # length → pieces of that length


class KeyGuard:
    """Of one key. A placeholder guards nothing."""

    def __init__(self, key: str) -> None:
        self._pieces: Pieces = {}
        self._plain = ""
        self._exact: re.Pattern[str] | None = None
        if len(key) < MIN_SECRET_CHARACTERS:
            return
        self._plain = _reduced(key)
        # The key in upper or lower case, and with any of its letters escaped as in JSON, perhaps more than once.
        letters = (rf"(?:{re.escape(sign)}|\\+u{ord(sign):04x})" for sign in key)
        self._exact = re.compile("".join(letters), re.IGNORECASE)
        self._pieces = _all_pieces(_secret_part(key))

    def __repr__(self) -> str:
        return "KeyGuard(…)"

    def holds(self, text: str) -> bool:
        """Whether `text` holds the key, or a piece of it in one of the disguises above."""
        if self._exact is None:
            return False
        if self._exact.search(text):
            return True
        return any(self._has_piece(reduced) for reduced in {_reduced(text), _reduced(_unescaped(text))}) or self._has_words(
            text
        )

    def hidden(self, text: str) -> str:
        """`text` without the key; where it is in disguise, nothing of the text."""
        if self._exact is not None:
            text = self._exact.sub("[API key]", text)
        return WITHHELD if self.holds(text) else text

    def _has_piece(self, reduced: str) -> bool:
        for length, pieces in self._pieces.items():
            if any(reduced[start : start + length] in pieces for start in range(len(reduced) - length + 1)):
                return True
        return False

    def _has_words(self, text: str) -> bool:
        """Whether the words of a text that are pieces of the key cover most of it."""
        covered: set[int] = set()
        with_digit: set[int] = set()
        for word in set(re.findall(r"[a-z0-9]+", unicodedata.normalize("NFKD", _unescaped(text)).lower())):
            start = self._plain.find(word) if len(word) >= MIN_WORD else -1
            if start >= 0:
                covered.update(range(start, start + len(word)))
                if any(sign.isdigit() for sign in word):
                    with_digit.update(range(start, start + len(word)))
        length = len(self._plain)
        return len(covered) >= max(PIECE, WORDS_SHARE * length) and len(with_digit) >= DIGITS_SHARE * length


def _secret_part(key: str) -> str:
    """The key without the beginning that all keys of a server have, such as sk-proj-."""
    prefix = PREFIX.match(key)
    secret_part = key[prefix.end() :] if prefix else key
    return secret_part if len(secret_part) >= LETTERS_PIECE else key


@lru_cache(maxsize=4)  # in memory, where the key is too
def _all_pieces(key: str) -> Pieces:
    pieces: Pieces = {}

    def add(text: str, length: int) -> None:
        reduced = _reduced(text)
        length = min(length, len(reduced))
        if length >= PIECE:
            windows = {reduced[start : start + length] for start in range(len(reduced) - length + 1)}
            pieces.setdefault(length, set()).update(windows)

    for disguised in {key, key[::-1], codecs.encode(key, "rot13")}:
        add(disguised, LETTERS_PIECE)
        for piece in re.findall(rf"(?=(.{{{PIECE}}}))", _reduced(disguised)):
            if any(sign.isdigit() for sign in piece):
                add(piece, PIECE)
        for form in {disguised, disguised.lower(), disguised.upper()}:
            for length, encoded in (*_encoded(form), *_codes(form)):
                add(encoded, length)
    for _, encoded in _encoded(key):
        for length, twice in _encoded(encoded):
            add(twice, length)
    return pieces


def _encoded(text: str) -> Iterator[tuple[int, str]]:
    """`text` in base64, base32 and hexadecimal digits, wherever it begins in what is encoded: only signs that no neighbour
    decides. Each with the length of a piece."""
    text_bytes = text.encode()
    for encode, group, bits in ((base64.b64encode, 3, 6), (base64.urlsafe_b64encode, 3, 6), (base64.b32encode, 5, 5)):
        for before in range(group):
            signs = encode(b"\0" * before + text_bytes).decode().rstrip("=")
            first, last = -(-8 * before // bits), 8 * (before + len(text_bytes)) // bits
            yield ENCODED_PIECE, signs[first:last]
    yield 2 * PIECE, text_bytes.hex()


def _codes(text: str) -> Iterator[tuple[int, str]]:
    """The characters' codes one after the other. Each with the length of a piece."""
    for layout, digits in CODES.items():
        yield digits, "".join(f"{ord(sign):{layout}}" for sign in text)


def _reduced(text: str) -> str:
    """Lower-case ASCII letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", text).lower())


def _unescaped(text: str) -> str:
    """`text` with the escapes of JSON, URLs and HTML resolved, also one inside the other."""
    for _ in range(MAX_ESCAPES):
        plain = ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), html.unescape(text))
        if plain == text:
            break
        text = plain
    return BLANKS.sub(" ", text)
