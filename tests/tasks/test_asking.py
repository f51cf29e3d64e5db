"""One class asked for over real HTTP, from a server that misbehaves in every way known: what is sent, repaired, refused."""

import base64
import json
import os
import re
import subprocess
import sys

import pytest
from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError, SettingError
from excel_core.text.chat import Chat, Usage
from excel_core.text.llm_descriptions import LlmDescriptions, request_descriptions
from tests.conftest import ROOT
from tests.tasks.chat_server import (
    KEY,
    MODEL,
    ChatServer,
    chat_server,
    completion,
    content,
    good_texts,
    hang,
    reset,
    says,
    status,
)  # fmt: skip

DISGUISED = (
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(b"x" + KEY.encode()).decode().rstrip("="),
    base64.urlsafe_b64encode(b"xx" + KEY.encode()).decode(),
    KEY.encode().hex(":").upper(),
    KEY[::-1],
    "\u200b".join(KEY),
    "".join(f"%{sign:02X}" for sign in KEY.encode()),
)
PREFIX = "a clean origami dog. it "
REQUEST = f'Write 4 visual descriptions of the object class "dog". Form: `{PREFIX}…`'
GOOD = good_texts(PREFIX, 4)


def _ask(server: ChatServer, key: str | None = KEY, **spec) -> LlmDescriptions:
    chosen = DescribeSpec(provider="openai", base_url=server.url, **{"retries": 1, "timeout": 20, "n": 4} | spec)
    with Chat(chosen, SecretStr(key) if key else None) as chat:
        return request_descriptions(chat, REQUEST, PREFIX, 4)


def _error(*deeds, requests: int = 1, **spec) -> str:
    """What is raised when the server does `deeds`, after so many requests; no key is in it, nor anything behind it."""
    with chat_server({"dog": list(deeds)}) as server, pytest.raises(DescriptionError) as caught:
        _ask(server, **spec)
    assert len(server.requests) == requests
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert KEY.lower() not in str(caught.value).lower()
    return str(caught.value)


def _repaired(first, kept: list[str]) -> tuple[LlmDescriptions, str]:
    """The answer and the repair's words when the server does `first` and then behaves; `kept` comes first in it."""
    with chat_server({"dog": [first]}) as server:
        asked = _ask(server)
    opening, repair = server.about("dog")
    assert repair.body["messages"][:2] == opening.body["messages"]
    assert [message["role"] for message in repair.body["messages"]] == ["system", "user", "assistant", "user"]
    words = repair.body["messages"][3]["content"]
    assert f"Write {4 - len(kept)} more, each beginning with '{PREFIX}'" in words
    assert all(text in words for text in kept)
    assert asked.texts[: len(kept)] == tuple(kept) and len(set(asked.texts)) == 4
    assert asked.usage == Usage(2, 200, 80)
    return asked, words


def test_what_is_sent_and_what_comes_back():
    with chat_server({"dog": [says(GOOD)]}) as server:
        assert _ask(server, model="some-model") == LlmDescriptions(tuple(GOOD), MODEL, Usage(1, 100, 40))
    (seen,) = server.requests
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert set(seen.body) == {"model", "messages", "response_format"} and seen.body["model"] == "some-model"
    system, user = seen.body["messages"]
    assert system["role"] == "system" and '{"descriptions": ["…", …]}' in system["content"]
    assert user == {"role": "user", "content": REQUEST}
    asked = seen.body["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["strict"] is True
    schema = asked["json_schema"]["schema"]
    assert schema["properties"] == {"descriptions": {"type": "array", "items": {"type": "string"}}}
    assert schema["required"] == ["descriptions"] and schema["additionalProperties"] is False


@pytest.mark.parametrize(("structured", "sent"), [("json_object", {"type": "json_object"}), ("text", None)])
def test_servers_that_know_no_schema(structured, sent):
    fenced = f"```json\n{json.dumps(GOOD, indent=1)}\n```"
    with chat_server({"dog": [content(fenced)]}) as server:
        assert _ask(server, structured=structured, temperature=0.5).texts == tuple(GOOD)
    assert server.requests[0].body.get("response_format") == sent
    assert server.requests[0].body["temperature"] == 0.5


def test_a_rate_limit_is_waited_out_as_long_as_the_server_says():
    with chat_server({"dog": [status(429, Retry_After="2"), status(429, Retry_After="2")]}) as server:
        assert len(_ask(server, retries=2).texts) == 4
    first, second, third = server.requests
    assert second.came - first.went >= 1.9 and third.came - second.went >= 1.9
    assert first.body == second.body == third.body


@pytest.mark.parametrize("deed", [status(429), status(500), status(503, b"<html>down</html>"), reset])
def test_what_passes_is_tried_again(deed):
    with chat_server({"dog": [deed]}) as server:
        assert _ask(server).usage == Usage(1, 100, 40)
    assert len(server.requests) == 2


def test_a_server_that_hangs_is_given_up_and_asked_again():
    with chat_server({"dog": [hang]}) as server:
        assert len(_ask(server, timeout=3).texts) == 4
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("deed", "says_so"),
    [
        (status(429), "status 429: no, with up to 1 retries"),
        (status(500), "status 500: no, with up to 1 retries"),
        (reset, "no connection, with up to 1 retries: "),
        (hang, "no answer in 3 s, with up to 1 retries; see describe.timeout"),
    ],
)
def test_what_does_not_pass_is_an_error_after_the_last_try(deed, says_so):
    assert says_so in _error(deed, deed, requests=2, timeout=3)


@pytest.mark.parametrize(
    ("deed", "says_so"),
    [
        (status(200, b'{"choices": [{'), "the answer is not that of a chat completion: Expecting"),
        (status(200, b"null"), "the answer is not that of a chat completion: None"),
        (status(200, []), "the answer is not that of a chat completion: []"),
        (status(200, {"choices": []}), "the answer is not that of a chat completion"),
        (status(200, {"choices": [{"index": 0}]}), "the answer is not that of a chat completion"),
        (status(404, {"error": {"message": "no such model"}}), "status 404: no such model"),
        (status(400, {"error": {"message": "what schema?"}}), "describe.structured=json_schema takes another one"),
        (content(None, refusal="I will not."), "refuses: I will not.; change the instruction"),
        (content(None, finish_reason="content_filter"), "refuses: its content filter"),
        (content('{"descriptions": ["a cl', finish_reason="length"), "cut off at the model's length limit; lower describe.n"),
    ],
)
def test_what_no_repair_would_help(deed, says_so):
    assert says_so in _error(deed)


@pytest.mark.parametrize(
    ("reply", "says_so"),
    [
        ("Here they are: 1. a clean origami dog", "the reply is not JSON"),
        ('{"descriptions": ["a', "the reply is not JSON"),
        (None, "the reply is empty"),
        ('{"texts": [7]}', 'the reply is JSON, but not {"descriptions": [texts]}'),
        ('{"descriptions": "a"}', 'the reply is JSON, but not {"descriptions": [texts]}'),
        ("7", 'the reply is JSON, but not {"descriptions": [texts]}'),
    ],
)
def test_a_reply_of_another_shape_is_repaired(reply, says_so):
    assert says_so in _repaired(content(reply), [])[1]


@pytest.mark.parametrize(
    ("wrong", "says_so"),
    [
        (GOOD[0], f"is there twice: '{GOOD[0]}'"),
        ("a clean origami cat. it has fur.", f"must be '{PREFIX}…' in lower case, got 'a clean origami cat. it has fur.'"),
        ("it has fur.", f"must be '{PREFIX}…' in lower case, got 'it has fur.'"),
        (f"{PREFIX}has\x07fur.", "must be one line of printable text"),
        (f"{PREFIX}has {'very ' * 80}long fur.", "of CLIP's tokens long, at most 77 fit"),
        (7, "must be text, got 7"),
        (["x"], 'must be text, got ["x"]'),
    ],
)
def test_a_wrong_text_is_named_and_the_good_ones_are_kept(wrong, says_so):
    words = _repaired(says([GOOD[0], wrong, GOOD[1], GOOD[2]]), GOOD[:3])[1]
    assert "These cannot be used:\n- " in words and says_so in words


def test_too_few_are_filled_up_and_too_many_cut():
    words = _repaired(says(GOOD[:2]), GOOD[:2])[1]
    assert "cannot be used" not in words
    with chat_server({"dog": [says(good_texts(PREFIX, 9))]}) as server:
        assert _ask(server).texts == tuple(good_texts(PREFIX, 9)[:4])


def test_a_repair_that_repeats_what_is_kept_fills_nothing():
    message = _error(says(GOOD[:3]), says(GOOD[:1]), requests=2)
    assert f"3 of 4 descriptions are usable after a round of repair: is there twice: '{GOOD[0]}'" in message


def test_too_few_twice_fails_and_says_so():
    assert "2 of 4 descriptions are usable after a round of repair: too few came back" in _error(
        says(GOOD[:1]), says(GOOD[1:2]), requests=2
    )


@pytest.mark.parametrize(
    "deed",
    [
        status(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}}),
        status(401, {"error": {"message": "x" * 490 + KEY}}),  # across the place where a long message is cut
        status(400, f"<p>Bearer {KEY}</p>".encode()),
        status(200, f"broken {KEY}".encode()),
        status(200, completion("{}", model=KEY)),
        content(None, refusal=f"not with {KEY}"),
        says([f"{PREFIX}has {KEY.lower()} on it.", *GOOD]),
        content('{"descriptions": ["' + "".join(f"\\u{ord(sign):04X}" for sign in KEY) + '"]}'),  # escaped twice
        *(deed for text in DISGUISED for deed in (
            status(401, {"error": {"message": f"not with {text}"}}),
            status(200, completion("{}", model=text)),
            content(None, refusal=text),
            says([f"{PREFIX}has {text} on it.", *GOOD]),
            says([*(f"{PREFIX}has {part} on it." for part in re.findall(".{1,30}", text, re.DOTALL)), *GOOD]),
        )),
    ],
)  # fmt: skip
def test_a_key_that_comes_back_is_told_to_nobody(deed):
    message = _error(deed)
    assert any(words in message for words in ("[API key]", "holds the API key and is refused", "hold the API key in disguise"))
    assert not any(text in message for text in DISGUISED)


def test_a_key_in_pieces_over_a_repair_is_noticed():
    words = [KEY.replace("-", "")[i : i + 4] for i in range(0, 28, 4)]  # no piece is long enough to be noticed by itself
    halves = [says([f"{PREFIX}has {word} on it." for word in part]) for part in (words[:3], words[3:])]
    with chat_server({"dog": [halves[0]]}) as server:
        assert len(_ask(server).texts) == 4
    assert "holds the API key and is refused" in _error(*halves, requests=2)


def test_without_a_key_a_placeholder_is_sent_and_an_impossible_one_is_refused():
    with chat_server({"dog": [says(["none", *GOOD[1:]])]}) as server:  # the placeholder is no secret
        _ask(server, key=None)
        assert server.requests[0].headers["authorization"] == "Bearer none"
        with pytest.raises(SettingError) as caught:
            _ask(server, key=f"{KEY}\nX: y")
    assert KEY not in str(caught.value) and len(server.requests) == 2


def test_the_environment_does_not_choose_the_server(monkeypatch):
    with chat_server() as server, chat_server() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        _ask(server)
        with Chat(DescribeSpec(provider="openai"), SecretStr(KEY)) as chat:
            assert str(chat._client.base_url) == "https://api.openai.com/v1/"
    assert len(server.requests) == 1 and not other.requests


def test_excel_is_imported_without_the_package():
    code = "import sys; sys.modules['openai'] = None; import tasks.stages.describe, excel_core.text.chat"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, env=dict(os.environ))


@pytest.mark.parametrize("url", ["http://me:word@host/v1", "http://token@host/v1", "http://host/v1?key=word", "http://h/#word"])
def test_a_server_with_credentials_in_its_url_is_refused_without_showing_them(url):
    with pytest.raises(SettingError, match="without user, password, query or fragment") as caught:
        DescribeSpec(base_url=url)
    assert "word" not in str(caught.value).replace("password", "") and "token" not in str(caught.value)
