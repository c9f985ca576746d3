"""A call's arguments are whole when their object is, wherever the pieces are cut."""

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.anthropic_arguments import Arguments

OBJECTS = st.dictionaries(
    st.text(max_size=4) | st.sampled_from(['"', "\\", "}", '{"']),
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=4) | st.sampled_from(['\\"}', "]", "\\"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=6,
    ),
    max_size=3,
)


def follow(*pieces: str) -> Arguments:
    arguments = Arguments()
    for piece in pieces:
        arguments.feed(piece)
    return arguments


@given(OBJECTS)
def test_an_object_is_whole_at_its_last_character_and_not_before(value: object) -> None:
    text = orjson.dumps(value).decode()
    arguments = Arguments()
    for at, character in enumerate(text, start=1):
        arguments.feed(character)
        assert arguments.is_whole == (at == len(text))


@given(OBJECTS, st.integers(0, 99))
def test_white_space_and_cuts_change_nothing(value: object, cut: int) -> None:
    text = " \n" + orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    at = cut % len(text)
    assert follow(text[:at], "", text[at:], "\n").is_whole
    assert follow(text).is_whole


@pytest.mark.parametrize(
    "text", ["", " ", "5", "null", '"{}"', "[{}]", "[]", "{", '{"a":"}', "x{}"]
)
def test_nothing_else_is_whole(text: str) -> None:
    assert not follow(text).is_whole


def test_long_arguments_take_time_in_proportion() -> None:
    began = time.perf_counter()
    follow('{"a":"', *["}"] * 300_000)
    assert time.perf_counter() - began < 5
