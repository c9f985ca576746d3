"""Forms as clients send them, and as an independent parser reads them."""

from email.parser import BytesParser
from email.policy import HTTP

BOUNDARY = b"----WebKitFormBoundary7MA4YWxk"
AUDIO = b"RIFF\x00\xff--\r\n\r\n\x00data"


def field(name: str, value: str | bytes) -> bytes:
    """One value; the delimiter before it, and the line break behind."""
    text = value.encode() if isinstance(value, str) else value
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % (BOUNDARY, name.encode())
    return head + text + b"\r\n"


def file(content: bytes = AUDIO, *, name: str = "file", file_name: str = "a.wav") -> bytes:
    """One file, with its media type."""
    disposition = f'form-data; name="{name}"; filename="{file_name}"'.encode()
    return (
        b"--%b\r\nContent-Disposition: %b\r\nContent-Type: audio/wav\r\n\r\n%b\r\n"
        % (BOUNDARY, disposition, content)
    )  # fmt: skip


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


CONTENT_TYPE = b"multipart/form-data; boundary=" + BOUNDARY


def read(body: bytes, content_type: bytes) -> dict[str, bytes]:
    """Name to content, as the standard library's parser of mail has it."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: %b\r\n\r\n" % content_type + body)
    read: dict[str, bytes] = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        read[str(part.get_param("name", header="content-disposition"))] = content
    return read
