"""Errors that come with status 200. Gateways have answered already when the provider behind them fails.

{"error": {"code": 429, "message": …}}          OpenRouter; others send {"error": "words"}
{"choices": [{"error": {"code": 502, …}}]}      OpenRouter, of an answer that broke off
{"object": "error", "code": 404, "message": …}  older vLLM
"""

import json
from typing import Any

__all__ = ["error_status"]

BAD_GATEWAY = 502  # of an error that names no status: tried again, as what a server cannot help


def error_status(status: int, body: bytes) -> tuple[int, bytes]:
    """Status and body of a reply; where a 200 tells of an error, the error's status, and a body {"error": …}."""
    if status != 200 or b"error" not in body:
        return status, body
    try:
        error = _error_in(json.loads(body))
    except (ValueError, RecursionError):
        return status, body
    if error is None:
        return status, body
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    number = int(code) if isinstance(code, int | str) and str(code).isascii() and str(code).isdigit() else BAD_GATEWAY
    return number if 400 <= number < 600 else BAD_GATEWAY, json.dumps({"error": error}).encode()


def _error_in(reply: Any) -> Any | None:
    """The error that a reply tells of, None where it is an answer."""
    if not isinstance(reply, dict):
        return None
    if reply.get("object") == "error":
        return reply
    choices = reply.get("choices")
    if not choices:
        return reply.get("error") or None
    first = choices[0] if isinstance(choices, list) else None
    return (first.get("error") or None) if isinstance(first, dict) else None
