"""Text files that people write, in the encodings that their editors choose: UTF-8, with or without a byte order mark, and
UTF-16 with one, as Windows' tools write it."""

import codecs

__all__ = ["decoded_text"]

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded_text(content: bytes) -> str:
    """The text of a file, without its byte order mark. UnicodeDecodeError for another encoding."""
    return content.decode("utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig")
