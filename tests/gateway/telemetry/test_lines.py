"""A log line's two forms: whatever a field holds, it stays one line of the log."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.lines import console_renderer, render_json

FORGED = "2026-01-01T00:00:00.000Z [critical] forged"
HOSTILE = (
    f"a\n{FORGED}",
    f"a\r\n{FORGED}",
    f"a\u2028{FORGED}",
    f"a\x85{FORGED}",
    f"a\x0b\x0c{FORGED}",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x9b31m",
    "\u202egnp.exe",
    "half a pair \ud800",
    "\x00\x07\x08",
)
console = console_renderer(has_colors=False)


def fields(value: Any) -> dict[str, Any]:
    return {"timestamp": "now", "level": "info", "event": "request", "request_id": value}


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_makes_a_second_line_or_a_control_sequence_in_either_form(value: str) -> None:
    for made in ({"request_id": value}, {"event": value}, {"models": [value]}):
        for render in (render_json, console):
            line = render(fields("r") | made)

            assert line.count(b"\n") == 1 and line.endswith(b"\n")
            assert line[:-1].decode().isprintable()


@given(st.text())
def test_any_text_is_one_line_and_json_gives_it_back(value: str) -> None:
    line = render_json(fields(value))

    assert len(line.decode().splitlines()) >= 1 and line.count(b"\n") == 1
    assert json.loads(line)["request_id"] == value
    assert console(fields(value)).count(b"\n") == 1


def test_what_json_cannot_say_is_said_as_well_as_can_be() -> None:
    line = json.loads(render_json(fields(2**70) | {"odd": {1, 2}}))

    assert (line["request_id"], line["odd"]) == (2**70, "{1, 2}")


def test_a_traceback_keeps_its_lines_and_none_of_them_looks_like_the_beginning_of_one() -> None:
    text = f"Traceback\n  File x\nValueError: a\n{FORGED}\n\x1b[2J"

    lines = console(fields("r") | {"exception": text}).decode().splitlines()

    assert len(lines) == 6
    assert all(line.startswith("  | ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


def test_colours_are_for_terminals() -> None:
    assert b"\x1b[" in console_renderer(has_colors=True)(fields("r"))
    assert b"\x1b" not in console(fields("r"))
