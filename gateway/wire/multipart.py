"""Forms (multipart/form-data, RFC 7578): what could be read in two ways is refused.

What goes to the upstream is this reading, written out again, so both see the same fields.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import InvalidRequest, UnsupportedMediaType

MAX_PARTS: Final = 64
MAX_PART_HEAD_BYTES: Final = 4 * 1024
MAX_FIELD_BYTES: Final = 256 * 1024

MEDIA_TYPE: Final = b"multipart/form-data"

# RFC 2046, 5.1.1. A space inside is allowed there; nobody sends one, and parsers disagree on it.
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}")
_PARAMETER: Final = re.compile(
    rb';[ \t]*([A-Za-z0-9*_-]+)=("(?:[^"\\]|\\.)*"|[^\s;"]+)[ \t]*(?=;|\Z)'
)
_NAME: Final = re.compile(rb"[A-Za-z0-9_.-]{1,64}(?:\[\])?")
_MEDIA_TYPE: Final = re.compile(rb"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_UNSAFE_IN_FILE_NAMES: Final = re.compile(rb"[^A-Za-z0-9._-]+")
_END_OF_LINE: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form. `file_name` is None where it is a value and no file.

    `content` of a file is a view of the body it came in, not a copy.
    """

    name: str
    content: bytes | memoryview
    file_name: str | None = None
    media_type: str = ""

    @property
    def is_file(self) -> bool:
        return self.file_name is not None


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form in their order. Names are unique but for lists (`name[]`)."""

    boundary: bytes
    parts: list[Part]

    @property
    def content_type(self) -> bytes:
        return b'%b; boundary="%b"' % (MEDIA_TYPE, self.boundary)

    def values(self) -> Mapping[str, str]:
        """The fields that are no files and no lists. Raises InvalidRequest if one is no UTF-8."""
        return {
            part.name: _text(part)
            for part in self.parts
            if not part.is_file and not part.name.endswith("[]")
        }

    def encode(self, *, without: Iterable[str], values: Mapping[str, str]) -> bytes:
        """The form written out: every part but those named, and `values` before all others."""
        left_out = frozenset(without) | values.keys()
        written = [_head(self.boundary, name) + value.encode() for name, value in values.items()]
        pieces: list[bytes | memoryview] = [_END_OF_LINE.join([*written, b""])]
        for part in self.parts:
            if part.name not in left_out:
                pieces += [_head_of(self.boundary, part), part.content, _END_OF_LINE]
        return b"".join([*pieces, b"--", self.boundary, b"--\r\n"])


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a Content-Type names. Raises UnsupportedMediaType if it is none of a form,
    and InvalidRequest (`invalid_form`) where it has no boundary that all would read alike."""
    media_type, _, _ = content_type.partition(b";")
    if media_type.strip().lower() != MEDIA_TYPE:
        raise UnsupportedMediaType("Send the body as Content-Type: multipart/form-data.")
    boundary = _parameters(content_type).get(b"boundary", b"")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise _invalid("the Content-Type has no usable boundary")
    return boundary


def parse_form(body: bytes, boundary: bytes) -> Form:
    """Read a form. Raises InvalidRequest (`invalid_form`), `param` being the field at fault."""
    delimiter = b"\r\n--" + boundary
    if not body.startswith(delimiter[2:]):
        raise _invalid("it does not begin with its boundary")

    view = memoryview(body)
    parts: list[Part] = []
    at = len(delimiter) - 2
    while body[at : at + 2] != b"--":
        if len(parts) == MAX_PARTS:
            raise _invalid(f"it has more than {MAX_PARTS} parts")
        if body[at : at + 2] != _END_OF_LINE:
            raise _invalid("a line goes on behind the boundary")
        end = body.find(delimiter, at)
        if end < 0:
            raise _invalid("it ends before its last boundary")
        parts.append(_part(body, view, at, end))
        at = end + len(delimiter)
    if body[at + 2 :].strip():
        raise _invalid("something follows its last boundary")
    _require_unique(parts)
    return Form(boundary, parts)


def _part(body: bytes, view: memoryview, start: int, end: int) -> Part:
    head_ends = body.find(b"\r\n\r\n", start, min(end, start + MAX_PART_HEAD_BYTES))
    if head_ends < 0:
        raise _invalid("a part has no end of its headers, or too many of them")
    headers = _headers(body[start + 2 : head_ends])
    content_starts = head_ends + 4

    name, file_name = _disposition(headers.get(b"content-disposition", b""))
    if file_name is not None:
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip()
        usable = _MEDIA_TYPE.fullmatch(media_type) is not None
        known = media_type.decode() if usable else "application/octet-stream"
        return Part(name, view[content_starts:end], file_name, known)
    if end - content_starts > MAX_FIELD_BYTES:
        raise _invalid(f"the field is larger than {MAX_FIELD_BYTES} bytes", param=name)
    return Part(name, body[content_starts:end])


def _headers(head: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in head.split(_END_OF_LINE):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name.strip() or name != name.strip() or name in headers:
            raise _invalid("a part has a header that is none")
        headers[name] = value.strip()
    return headers


def _disposition(value: bytes) -> tuple[str, str | None]:
    """Name and file name; the latter only with what is harmless in one."""
    kind, _, _ = value.partition(b";")
    parameters = _parameters(value)
    name = parameters.get(b"name", b"")
    if kind.strip().lower() != b"form-data" or _NAME.fullmatch(name) is None:
        raise _invalid("a part has no usable name")
    if b"filename*" in parameters:
        raise _invalid("RFC 7578 forbids 'filename*'", param=name.decode())
    file_name = parameters.get(b"filename")
    if file_name is None:
        return name.decode(), None
    return name.decode(), _UNSAFE_IN_FILE_NAMES.sub(b"_", file_name)[-128:].decode() or "file"


def _parameters(value: bytes) -> dict[bytes, bytes]:
    """The parameters behind the first semicolon. Raises InvalidRequest where one is twice there or
    is none."""
    parameters: dict[bytes, bytes] = {}
    at = value.find(b";")
    while 0 <= at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            if value[at:].strip(b"; \t"):
                raise _invalid("a header has a parameter that cannot be read")
            break
        name, text = found[1].lower(), found[2]
        if name in parameters:
            raise _invalid("a header has a parameter twice")
        parameters[name] = text[1:-1] if text.startswith(b'"') else text
        at = found.end()
    return parameters


def _require_unique(parts: list[Part]) -> None:
    seen = set()
    for part in parts:
        if part.name in seen and not part.name.endswith("[]"):
            raise _invalid("the field is there twice", param=part.name)
        seen.add(part.name)


def _text(part: Part) -> str:
    try:
        return bytes(part.content).decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("the field is not valid UTF-8", param=part.name) from None


def _head(boundary: bytes, name: str) -> bytes:
    disposition = b'Content-Disposition: form-data; name="%b"' % name.encode("ascii")
    return b"--%b\r\n%b\r\n\r\n" % (boundary, disposition)


def _head_of(boundary: bytes, part: Part) -> bytes:
    if part.file_name is None:
        return _head(boundary, part.name)
    head = _head(boundary, part.name).removesuffix(b"\r\n\r\n")
    of_file = (part.file_name.encode("ascii"), part.media_type.encode("ascii"))
    return head + b'; filename="%b"\r\nContent-Type: %b\r\n\r\n' % of_file


def _invalid(why: str, *, param: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {why}.", code="invalid_form", param=param)
