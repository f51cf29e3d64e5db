"""A key in a text is noticed in every disguise that is promised; ordinary texts are left alone."""

import base64
import codecs
import html
import json
import random
import secrets
import string
import uuid
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from excel_core.text.class_sets import PROMPTS_FOLDER
from excel_core.text.key_guard import WITHHELD, KeyGuard

BASE62 = string.ascii_letters + string.digits
AROUND = ("a clean origami dog. it has ", " on its soft brown back, and 4 legs.")


def _key(beginning, alphabet, least, most):
    """Keys whose signs are random, as a provider's are: not those that hypothesis likes, such as zeros."""

    def draw(seed):
        chance = random.Random(f"{beginning}{seed}")
        return beginning + "".join(chance.choices(alphabet, k=chance.randint(least, most)))

    return st.integers(0, 2**64).map(draw)


KEYS = st.one_of(
    _key("sk-", BASE62, 48, 48),
    _key("sk-proj-", BASE62 + "_-", 100, 156),
    _key("sk-ant-api03-", BASE62 + "_-", 90, 95),
    _key("gsk_", BASE62, 52, 52),
    _key("", "0123456789abcdef", 32, 64),
    st.uuids(version=4).map(str),
)


def _base64(data, skipped):
    """A key somewhere inside what is encoded."""
    return base64.b64encode(b"k" * skipped + data + b" is the key").decode()


DISGUISES = {
    "as it is": lambda key: key,
    "upper case": str.upper,
    "reversed": lambda key: key[::-1],
    "ROT13": lambda key: codecs.encode(key, "rot13"),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 without padding": lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    "base64 from the second byte": lambda key: _base64(key.encode(), 1),
    "base64 from the third byte": lambda key: _base64(key.encode(), 2),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(b"?>" + key.encode()).decode(),
    "base64 in lines": lambda key: base64.encodebytes(key.encode() * 3).decode(),
    "base64 of the upper case": lambda key: base64.b64encode(key.upper().encode()).decode(),
    "base64 reversed": lambda key: base64.b64encode(key[::-1].encode()).decode(),
    "base64 twice": lambda key: _base64(_base64(key.encode(), 1).encode(), 2),
    "base32": lambda key: base64.b32encode(b"xy" + key.encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "hex in upper case with colons": lambda key: key.encode().hex(":").upper(),
    "hex bytes of C": lambda key: ", ".join(f"0x{sign:02x}" for sign in key.encode()),
    "hex bytes of a string": lambda key: "".join(f"\\x{sign:02x}" for sign in key.encode()),
    "hex of base64": lambda key: _base64(key.encode(), 1).encode().hex(),
    "character codes": lambda key: " ".join(str(ord(sign)) for sign in key),
    "octal": lambda key: "".join(f"\\{ord(sign):03o}" for sign in key),
    "binary": lambda key: " ".join(f"{ord(sign):08b}" for sign in key),
    "JSON": lambda key: "".join(f"\\u{ord(sign):04X}" for sign in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps("".join(f"\\u{ord(sign):04x}" for sign in key))),
    "code points": lambda key: " ".join(f"U+{ord(sign):04X}" for sign in key),
    "per cent": lambda key: "".join(f"%{sign:02X}" for sign in key.encode()),
    "per cent twice": lambda key: quote("".join(f"%{sign:02X}" for sign in key.encode())),
    "quoted-printable": lambda key: "".join(f"={sign:02X}" for sign in key.encode()),
    "HTML": lambda key: "".join(f"&#{ord(sign)};" for sign in key),
    "HTML in hex, escaped": lambda key: html.escape("".join(f"&#x{ord(sign):x};" for sign in key)),
    "with spaces": " ".join,
    "with full stops": ".".join,
    "with lines": "\n".join,
    "with signs nobody sees": "\u200b".join,
    "with combining strokes": "\u0336".join,
    "in wide letters": lambda key: "".join(chr(ord(sign) + 0xFEE0) for sign in key),
    "a third of it": lambda key: key[len(key) // 3 : 2 * len(key) // 3 + 2],
    "in pieces of twelve": lambda key: json.dumps([key[i : i + 12] for i in range(0, len(key), 12)]),
    "in lists of letters": lambda key: json.dumps(list(key)),
    "as words of five": lambda key: " and ".join("".join(c for c in key if c.isalnum())[i : i + 5] for i in range(0, 200, 5)),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@given(key=KEYS)
@settings(max_examples=8)
def test_a_key_is_noticed_in_every_disguise(disguise, key):
    guard = KeyGuard(key)
    text = DISGUISES[disguise](key).join(AROUND)
    assert guard.holds(text) and guard.holds(json.dumps({"descriptions": [text]}))
    hidden = guard.hidden(text)
    assert key not in hidden and (hidden == WITHHELD or "[API key]" in hidden) and not guard.holds(hidden)


@given(key=KEYS)
@settings(max_examples=8)
def test_the_bundled_descriptions_hold_no_key(key):
    guard = KeyGuard(key)
    for file in sorted((PROMPTS_FOLDER / "descriptions").glob("*.json")):
        text = file.read_text()
        assert not guard.holds(text)
        assert guard.hidden(text[:5000]) == text[:5000]


@given(key=KEYS, text=st.text(max_size=400))
@settings(max_examples=40)
def test_other_texts_hold_no_key(key, text):
    assert not KeyGuard(key).holds(text)


@given(key=KEYS, other=KEYS)
@settings(max_examples=20)
def test_another_key_is_another_key(key, other):
    assert key == other or not KeyGuard(key).holds(f"{other} {_base64(other.encode(), 1)} {other.encode().hex()}")


@given(key=_key("", string.ascii_letters, 24, 40))
@settings(max_examples=20)
def test_a_key_of_letters_alone(key):
    guard = KeyGuard(key)
    for disguise in ("as it is", "reversed", "base64 from the second byte", "hex", "per cent", "with lines"):
        assert guard.holds(DISGUISES[disguise](key).join(AROUND)), disguise


@pytest.mark.parametrize("key", ["my-descriptions-key", "excel-test-server-password", "correct horse battery staple"])
def test_words_of_a_key_that_a_person_chose_may_occur(key):
    guard = KeyGuard(key)
    assert not guard.holds("descriptions of a horse: the server has a battery, a staple diet and a key to pass a test")
    assert guard.holds(f"it has {key} on it") and guard.holds(_base64(key.encode(), 1))


@pytest.mark.parametrize("key", ["none", "EMPTY", "ollama", "", "1234567"])
def test_a_placeholder_guards_nothing(key):
    assert not KeyGuard(key).holds(f"{key} {key}") and KeyGuard(key).hidden(key) == key


@pytest.mark.parametrize("key", ["--------", "a-b-c-d-", "........1"])
def test_a_key_of_few_letters_is_looked_for_as_it_is(key):
    assert KeyGuard(key).holds(f"<{key}>") and not KeyGuard(key).holds("a b c d 1")


def test_a_guard_shows_no_key():
    key = f"sk-{secrets.token_hex(20)}-{uuid.uuid4()}"
    assert key not in repr(KeyGuard(key)) and key not in repr([KeyGuard(key)])
