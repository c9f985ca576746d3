"""A form has one reading, and what the upstream gets is that reading."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, UnsupportedMediaType
from gateway.wire.multipart import (
    MAX_FIELD_BYTES,
    MAX_PART_HEAD_BYTES,
    MAX_PARTS,
    Form,
    boundary_of,
    parse_form,
)
from tests.gateway.wire.forms import AUDIO, BOUNDARY, CONTENT_TYPE, field, file, form, read

VALID = form(field("model", "m"), file(), field("timestamp_granularities[]", "word"))


def parsed(body: bytes) -> Form:
    return parse_form(body, BOUNDARY)


def test_fields_and_files_are_told_apart() -> None:
    model, sound, granularity = parsed(VALID).parts
    assert (model.name, model.content, model.is_file) == ("model", b"m", False)
    assert (sound.name, bytes(sound.content), sound.file_name) == ("file", AUDIO, "a.wav")
    assert sound.media_type == "audio/wav"
    assert granularity.name == "timestamp_granularities[]"
    assert parsed(VALID).values() == {"model": "m"}


@pytest.mark.parametrize(
    "parts",
    [*itertools.permutations([field("model", "m"), file(), field("language", "en")])],
)
def test_the_order_of_fields_means_nothing(parts: tuple[bytes, ...]) -> None:
    assert parsed(form(*parts)).values() == {"model": "m", "language": "en"}


def test_a_form_written_out_has_other_values_and_the_same_files() -> None:
    form_read = parsed(form(field("stream", "1"), file(), field("model", "alias")))
    written = form_read.encode(without=["stream"], values={"model": "real"})

    assert read(written, form_read.content_type) == {"model": b"real", "file": AUDIO}
    assert parsed(written).values() == {"model": "real"}


def test_a_missing_field_is_added() -> None:
    written = parsed(form(file())).encode(without=[], values={"model": "real"})
    assert parsed(written).values() == {"model": "real"}


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'Multipart/Form-Data;charset=utf-8 ; Boundary="a=b:c"', b"a=b:c"),
        (b"multipart/form-data; boundary=----WebKit_1'x; charset=utf-8", b"----WebKit_1'x"),
    ],
)
def test_the_boundary_is_found(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", [b"", b"application/json", b"multipart/mixed; boundary=a", b"text/plain"]
)
def test_what_is_no_form_is_an_unsupported_media_type(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        boundary_of(content_type)


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        b"; boundary=",
        b'; boundary=""',
        b"; boundary=a; boundary=b",
        b'; boundary="a b"',
        b"; boundary=" + b"a" * 71,
        b'; boundary="a',
        b"; boundary=a\\b",
        b"; boundary=\xe4",
    ],
)
def test_a_boundary_that_parsers_could_disagree_on_is_refused(parameters: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        boundary_of(b"multipart/form-data" + parameters)
    assert refused.value.code == "invalid_form"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "begin"),
        (b"preamble\r\n" + VALID, "begin"),
        (VALID[: -len(b"--\r\n")], "goes on"),
        (VALID[: VALID.rindex(b"\r\n--" + BOUNDARY)], "last boundary"),
        (VALID + b"epilogue", "follows"),
        (VALID + form(field("model", "other")), "follows"),
        (form(field("model", "a"), field("model", "b")), "twice"),
        (form(file(), file()), "twice"),
        (form(b"--" + BOUNDARY + b"x\r\n\r\n"), "goes on"),
        (form(b"--" + BOUNDARY + b"\r\n\r\nvalue\r\n"), "header"),
        (form(b"--" + BOUNDARY + b"\r\nno headers\r\n\r\nvalue\r\n"), "header"),
        (form(field("", "m")), "name"),
        (form(field('a"; name="b', "m")), "parameter"),
        (form(field("mod\xe9l", "m")), "name"),
        (form(field("model", "m").replace(b'; name="model"', b"")), "name"),
        (form(field("model", "m").replace(b"form-data", b"attachment")), "name"),
        (form(field("model", "m").replace(b"\r\n\r\n", b"\r\nContent-Disposition: x\r\n\r\n")),
         "header"),
        (form(file().replace(b"filename=", b"filename*=utf-8''")), "parameter|filename"),
        (form(field("x", b"a" * (MAX_FIELD_BYTES + 1))), "larger"),
        (form(field("x", "m").replace(b"\r\n\r\n", b"\r\nA: %b\r\n\r\n"
         % (b"a" * MAX_PART_HEAD_BYTES))), "headers"),
        (form(*[field(f"f{n}", "") for n in range(MAX_PARTS + 1)]), "parts"),
        (VALID.replace(b"\r\n", b"\n"), "goes on"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        parsed(body)
    assert refused.value.code == "invalid_form"
    assert refused.value.status == 400


def test_a_value_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(form(field("prompt", b"\xff"))).values()
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("träum.mp3", "tr_um.mp3"), ("../../etc/a.wav", ".._.._etc_a.wav"), ("a%22b.wav", "a_22b.wav"),
     (r"C:\\x\\y.ogg", "C_x_y.ogg"), (r"q\"; x=\"1.wav", "q_x_1.wav"), ("", "file")],
)  # fmt: skip
def test_of_a_file_name_only_what_is_harmless_goes_on(sent: str, kept: str) -> None:
    form_read = parsed(form(file(file_name=sent)))
    assert form_read.parts[0].file_name == kept
    assert read(form_read.encode(without=[], values={"model": "m"}), form_read.content_type)


def test_a_media_type_that_is_none_goes_on_as_bytes() -> None:
    odd = file().replace(b"audio/wav", b'x"; y')
    assert parsed(form(odd)).parts[0].media_type == "application/octet-stream"


def test_a_file_is_a_view_of_the_body_and_no_copy() -> None:
    body = form(file(b"x" * 100_000))
    content = parsed(body).parts[0].content
    assert isinstance(content, memoryview)
    assert content.obj is body


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda name: name != "file"),
        st.text(max_size=30),
        max_size=5,
    ),
    st.binary(max_size=200),
)
def test_what_is_written_out_reads_the_same_elsewhere(
    values: dict[str, str], content: bytes
) -> None:
    if b"\r\n--" + BOUNDARY in b"\r\n" + content:
        return
    first = parsed(form(*[field(name, text) for name, text in values.items()], file(content)))
    written = first.encode(without=[], values={"model": "real"})
    second = parsed(written)

    assert first.values() == values
    assert second.values() == {**values, "model": "real"}
    # The mail parser knows bare line feeds and carriage returns as ends of lines too.
    if b"--" + BOUNDARY not in content and all(text.isprintable() for text in values.values()):
        elsewhere = read(written, second.content_type)
        assert elsewhere.pop("file") == content
        assert {name: text.decode() for name, text in elsewhere.items()} == second.values()


PIECES = [
    b"--" + BOUNDARY, b"--", b"\r\n", b"\n", b"\r\n\r\n", b":", b'"', b";", b"=", b"\\",
    b'Content-Disposition: form-data; name="x"', b'; filename="y"', b"Content-Type: a/b",
    field("model", "m"), file(),
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=16), st.booleans())
def test_whatever_comes_is_a_form_or_refused(pieces: list[bytes], is_begun: bool) -> None:
    body = (b"--" + BOUNDARY if is_begun else b"") + b"".join(pieces)
    with contextlib.suppress(InvalidRequest):
        form_read = parsed(body)
        again = parsed(form_read.encode(without=[], values={"added": "1"}))
        assert len(again.parts) in (len(form_read.parts), len(form_read.parts) + 1)
        with contextlib.suppress(InvalidRequest):
            assert again.values() == {**form_read.values(), "added": "1"}


@given(st.integers(0, len(VALID)), st.binary(max_size=4), st.integers(0, 12))
def test_a_form_that_was_tampered_with_is_a_form_or_refused(
    at: int, inserted: bytes, removed: int
) -> None:
    with contextlib.suppress(InvalidRequest):
        parsed(VALID[:at] + inserted + VALID[at + removed :]).values()


@given(st.lists(st.sampled_from([b"multipart/form-data", b"; ", b"boundary", b"=", b'"', b"a"])))
def test_any_content_type_is_understood_or_refused(pieces: list[bytes]) -> None:
    with contextlib.suppress(InvalidRequest):
        assert boundary_of(b"".join(pieces))
    assert boundary_of(CONTENT_TYPE) == BOUNDARY
