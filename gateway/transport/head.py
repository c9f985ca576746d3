"""What the head of an answer may say, beyond being valid HTTP."""

from collections.abc import Mapping

HEADERS_MAX = 256
OVERSIZED = "The upstream's answer has an oversized head."


def fault_in(headers: Mapping[bytes, bytes]) -> str | None:
    """Why this answer cannot be passed on; None where it can.

    We ask for no transfer coding but chunked and for no content coding at all: bytes in one
    that came all the same would be passed on as if they were plain.
    """
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        return "The upstream's answer has a transfer coding nobody asked for."
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return "The upstream's answer is compressed, which nobody asked for."
    return None


def is_oversized(headers: Mapping[bytes, bytes], *, max_bytes: int) -> bool:
    return sum(len(name) + len(value) for name, value in headers.items()) > max_bytes
