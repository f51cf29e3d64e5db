"""Replies as servers really send them, over real HTTP: read at the first request, or refused with their beginning."""

import json

import pytest
from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError
from excel_core.text.chat import Chat
from excel_core.text.llm_descriptions import request_descriptions
from tests.tasks.chat_server import KEY, chat_server, completion, content, good_texts, says, status

PREFIX = "a clean origami dog. it "
REQUEST = f'Write 4 visual descriptions of the object class "dog". Form: `{PREFIX}…`'
GOOD = good_texts(PREFIX, 4)
JSON = json.dumps({"descriptions": GOOD})
DRAFT = json.dumps({"descriptions": ["a draft"]})
WHOLE_REPLIES = {
    "thinking aloud": f"<think>\nI could write {DRAFT}.\n</think>\n\n{JSON}",
    "thinking whose beginning is missing": f"Okay, {DRAFT} will not do.\n</think>\n{JSON}",
    "thinking that has no end": f"<think>I will answer now.\n{JSON}",
    "thinking under another name": f"<Thinking>{DRAFT}</Thinking>{JSON}",
    "thinking twice": f"<think>a</think> <think>{DRAFT}</think>{JSON}",
    "a fence": f"```json\n{JSON}\n```",
    "a fence between sentences": f"Here is the JSON you asked for:\n\n```json\n{JSON}\n```\nLet me know if you need more!",
    "a fence on one line": f"```json {JSON} ```",
    "thinking and a fence": f"<think>{{x}}</think>\nSure:\n```\n{JSON}\n```",
    "sentences with braces": f"Sure! I use {{class}} = dog [1]. {JSON} I hope that {{helps}} [2].",
    "the last answer of several": f"First: {DRAFT}. Better: {JSON}",
    "a byte order mark": f"\ufeff{JSON}",
    "a comma at the end": f"{JSON[:-2]},]}}",
    "a comma at the end, in a fence": f"So:\n```json\n{JSON[:-2]},\n],\n}}\n```",
    "JSON written twice": json.dumps(JSON),
    "a list alone": json.dumps(GOOD, indent=2),
    "objects with a text": json.dumps({"descriptions": [{"text": text} for text in GOOD]}),
    "an object inside another": json.dumps({"result": {"descriptions": GOOD}}),
    "a numbered object": json.dumps({"descriptions": {str(i): text for i, text in enumerate(GOOD)}}),
    "objects with a text and a number": json.dumps({"descriptions": [{"id": i, "text": text} for i, text in enumerate(GOOD)]}),
    "a list under another name": json.dumps({"class": "dog", "Descriptions": GOOD}),
    "a numbered list without JSON": "Here are four:\n\n"
    + "\n".join(f"{i + 1}. {text}" for i, text in enumerate(GOOD))
    + "\n\nBye!",
    "bullets without JSON, after thinking": f"<think>- {PREFIX}a draft</think>\n" + "\n".join(f"* {text}" for text in GOOD),
    "JSON line by line": "\n".join(json.dumps({"description": text}) for text in GOOD),
    "YAML": "descriptions:\n" + "\n".join(f'  - "{text}"' for text in GOOD),
    "channels": f"<|channel|>analysis<|message|>We need JSON {DRAFT}<|end|><|channel|>final<|message|>{JSON}",
}
TEXTS = {
    "blanks at the end": lambda text, i: f"{text} \n",
    "a capital at the beginning": lambda text, i: text[0].upper() + text[1:],
    "a capital after the full stop": lambda text, i: text.replace(". it ", ". It "),
    "capitals inside": lambda text, i: text.replace("side", "SIDE"),
    "spaces that break no line": lambda text, i: text.replace(" back", "\u00a0back").replace(". it ", ".\u202fit "),
    "two spaces": lambda text, i: text.replace(". it", ".  it"),
    "characters nobody sees": lambda text, i: "\u200b" + text.replace("back", "ba\u00adck") + "\ufeff",
    "numbers": lambda text, i: f"{i + 1}. {text}",
    "numbers in brackets": lambda text, i: f"({i + 1}) {text}",
    "bullets": lambda text, i: f"- {text}",
    "bold type": lambda text, i: text.replace(PREFIX, f"**{PREFIX.strip()}** "),
    "quotes": lambda text, i: f"“{text}”",
    "numbers and capitals": lambda text, i: f"{i + 1}) {text.capitalize()}",
}


def _ask(server, **spec):
    chosen = DescribeSpec(provider="openai", base_url=server.url, **{"retries": 1, "timeout": 20, "n": 4} | spec)
    with Chat(chosen, SecretStr(KEY)) as chat:
        return request_descriptions(chat, REQUEST, PREFIX, 4)


def _error(*deeds, requests, **spec):
    with chat_server({"dog": list(deeds)}) as server, pytest.raises(DescriptionError) as caught:
        _ask(server, **spec)
    assert len(server.requests) == requests and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WHOLE_REPLIES)
def test_a_whole_reply_is_read_at_once(kind):
    with chat_server({"dog": [content(WHOLE_REPLIES[kind])]}) as server:
        assert _ask(server).texts == tuple(GOOD)
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_made_plain_before_they_are_judged(kind):
    written = [TEXTS[kind](text, i) for i, text in enumerate(GOOD)]
    with chat_server({"dog": [says(written)]}) as server:
        texts = _ask(server).texts
    assert len(server.requests) == 1 and written != GOOD
    assert texts == tuple(GOOD)


def test_a_message_in_parts_is_read():
    parts = [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": JSON[:9]}, {"type": "text", "text": JSON[9:]}]
    with chat_server({"dog": [content(parts)]}) as server:
        assert _ask(server).texts == tuple(GOOD)


def test_the_same_text_in_capitals_is_there_twice():
    with chat_server({"dog": [says([GOOD[0], f"2. {GOOD[0].upper()}", *GOOD[1:3]])]}) as server:
        assert len(_ask(server).texts) == 4
    assert f"is there twice: '{GOOD[0]}'" in server.requests[1].body["messages"][3]["content"]


def test_what_stands_before_a_text_is_no_numbering_where_it_has_letters():
    bad = [f"of an old {text}" for text in GOOD]
    message = _error(says(bad), says(bad), requests=2)
    assert f"must be '{PREFIX}…' in lower case, got 'of an old {GOOD[0]}'" in message


def test_a_refused_reply_is_shown_by_its_beginning():
    essay = "I am sorry, but as a model I\ncannot describe dogs. " + "Please ask again. " * 100
    message = _error(content(essay), content(essay), requests=2)
    assert "it begins with 'I am sorry, but as a model I cannot describe dogs. Please ask" in message and len(message) < 600
    other = json.dumps({"answer": 42})
    assert "it begins with '{\"answer\": 42}'" in _error(content(other), content(other), requests=2)


def test_reasoning_without_an_answer_is_said():
    def deed(handler, seen):
        body = completion(None)
        body["choices"][0]["message"]["reasoning_content"] = f"Hmm, dogs. {JSON}"
        handler.send(200, body)

    message = _error(deed, deed, requests=2)
    assert "the reply has no text, only" in message and "begin with 'Hmm, dogs." in message and "thinking off" in message


def test_reasoning_beside_an_answer_is_no_answer():
    def deed(handler, seen):
        body = completion(JSON)
        body["choices"][0]["message"]["reasoning"] = DRAFT
        handler.send(200, body)

    with chat_server({"dog": [deed]}) as server:
        assert _ask(server).texts == tuple(GOOD)


def test_a_key_in_the_reasoning_is_told_to_nobody():
    def deed(handler, seen):
        body = completion(None)
        body["choices"][0]["message"]["reasoning"] = KEY[::-1]
        handler.send(200, body)

    message = _error(deed, requests=1)
    assert "holds the API key and is refused" in message and KEY[::-1] not in message


UPSTREAM = {"message": "Provider returned error", "code": 429, "metadata": {"raw": "rate-limited upstream"}}


@pytest.mark.parametrize(
    ("body", "says_so"),
    [
        ({"error": UPSTREAM}, "status 429: Provider returned error (rate-limited upstream), with up to 1 retries"),
        ({"error": {"message": "overloaded", "code": "503"}}, "status 503: overloaded, with up to 1 retries"),
        ({"error": "model is loading"}, "status 502: model is loading, with up to 1 retries"),
        ({"error": {"message": "odd", "code": "rate_limit_exceeded"}, "choices": None}, "status 502: odd, with up to 1"),
        ({"choices": [{"index": 0, "error": {"code": 502, "message": "broke off"}}]}, "status 502: broke off, with up to 1"),
    ],
)
def test_an_error_under_status_200_is_that_error_and_tried_again(body, says_so):
    deed = status(200, body)
    assert says_so in _error(deed, deed, requests=2)
    with chat_server({"dog": [deed]}) as server:
        assert len(_ask(server).texts) == 4
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("body", "says_so"),
    [
        ({"error": {"message": "no credit", "code": 402}}, "status 402: no credit"),
        ({"object": "error", "message": "no such model", "code": 404}, "status 404: no such model"),
        ({"error": {"message": "who?", "code": 401}}, "status 401: who?; check the API key"),
    ],
)
def test_an_error_that_stays_is_not_tried_again(body, says_so):
    assert says_so in _error(status(200, body), requests=1)


def test_an_answer_that_speaks_of_errors_is_an_answer():
    body = completion(JSON) | {"error": None, "object": "chat.completion"}
    with chat_server({"dog": [status(200, body)]}) as server:
        assert _ask(server).texts == tuple(GOOD)


def test_what_a_server_finds_wrong_is_shown():
    """As servers made with FastAPI say it."""
    detail = [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text' or 'json_object'"}]
    message = _error(status(422, {"detail": detail}), requests=1)
    assert "Input should be 'text' or 'json_object'" in message and "takes another one" in message


@pytest.mark.parametrize("code", [200, 404])
def test_an_address_that_is_a_page_is_said(code):
    page = status(code, b"<html>Ollama is running</html>", Content_Type="text/html")
    assert "describe.base_url is where /chat/completions follows; it mostly ends with /v1" in _error(page, requests=1)


@pytest.mark.parametrize("code", [400, 422, 500])
def test_a_server_without_schemas_leads_to_another_setting(code):
    deed = status(code, {"error": {"message": "json: unsupported response_format"}})
    message = _error(deed, requests=1, retries=0)
    assert "describe.structured=json_schema takes another one" in message
    assert "takes another one" not in _error(deed, requests=1, retries=0, structured="text")
