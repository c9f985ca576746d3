"""Exceptions in the log: where and what kind, and never what a request said."""

from pathlib import Path

import orjson

from gateway.errors import UpstreamFailed
from gateway.telemetry.faults import WITHHELD, describe

SECRET = "my-prompt-4c1f"


def caught(provoke: object) -> BaseException:
    try:
        provoke()  # type: ignore[operator]  # a function of the test
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def parse() -> None:
    prompt = SECRET  # A local that no traceback may show.
    int(prompt)


def test_what_python_quotes_is_withheld() -> None:
    shown = [
        describe(caught(parse)),
        describe(caught(lambda: dict[str, int]()[SECRET])),
        describe(caught(lambda: orjson.loads(f'{{"{SECRET}": nan}}'))),
        describe(caught((b"\xff" + SECRET.encode()).decode)),
    ]

    assert all(SECRET not in text and WITHHELD in text for text in shown)
    assert "in parse" in shown[0] and "ValueError" in shown[0]


def test_our_own_words_and_the_systems_are_shown() -> None:
    def fail() -> None:
        raise UpstreamFailed("The upstream made no sense.")

    assert "gateway.errors.UpstreamFailed: The upstream made no sense." in describe(caught(fail))
    assert "No such file or directory" in describe(caught(Path("/nowhere/at/all").stat))


def test_causes_come_first_and_a_circle_ends() -> None:
    def fail() -> None:
        try:
            parse()
        except ValueError as cause:
            raise UpstreamFailed("It follows.") from cause

    text = describe(caught(fail))
    first, _, second = text.partition("which led to:")
    assert "ValueError" in first and "It follows." in second

    circle = ValueError(SECRET)
    circle.__context__ = other = KeyError(SECRET)
    other.__context__ = circle
    assert SECRET not in describe(circle)


def test_each_of_a_group_is_shown() -> None:
    group = ExceptionGroup(SECRET, [ValueError(SECRET), OSError(28, "No space left on device")])

    text = describe(group)

    assert SECRET not in text
    assert "ValueError" in text and "No space left on device" in text
