"""Logging: one shape for all who speak, levels that change, and a file beside the stream."""

import json
import logging as stdlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.logs import LogFileUnusable, Logging
from gateway.telemetry.stdlog import QUIET_LOGGERS

SECRET = "my-prompt-77ab"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is of the process: give it back as it was."""
    root = stdlib.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    stdlib.captureWarnings(False)


class Stream:
    """A stream that is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w")

    def lines(self, logging: Logging) -> list[dict[str, Any]]:
        logging.close()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    made = Stream(tmp_path / "stdout")
    yield made
    made.file.close()


def test_everybody_speaks_in_one_shape(stream: Stream) -> None:
    # Whoever took the warnings in an earlier test holds on to what pytest has put back since.
    stdlib.captureWarnings(False)
    logging = Logging(level="INFO", form="json", stream=stream.file)

    logging.log.info("ours", upstream="u")
    stdlib.getLogger("uvicorn.error").error("bad %s", "thing")
    stdlib.getLogger("some.library").log(25, "a level of its own")
    stdlib.getLogger("broken").warning("%d", "no number")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = stream.lines(logging)

    assert [line["event"] for line in lines[:4]] == [
        "ours",
        "bad thing",
        "a level of its own",
        "%d",
    ]
    assert "DeprecationWarning: old" in lines[4]["event"]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    assert [line.get("logger") for line in lines] == [
        None, "uvicorn.error", "some.library", "broken", "py.warnings",
    ]  # fmt: skip


def test_no_traceback_and_no_repr_tells_what_a_request_said(stream: Stream) -> None:
    logging = Logging(level="DEBUG", form="json", stream=stream.file)

    def fail() -> None:
        raise ValueError(SECRET)

    try:
        fail()
    except ValueError as error:
        logging.log.critical("internal error", exc_info=error)
        stdlib.getLogger("library").exception("it failed")
        logging.log.error("again", exc_info=True)
    stdlib.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <{SECRET}>")
    lines = stream.lines(logging)

    assert SECRET not in json.dumps(lines)
    assert all("in fail" in line["exception"] for line in lines[:3])
    assert lines[3]["event"] == "Task exception was never retrieved"


def test_the_level_goes_up_and_down_by_steps_and_says_so(stream: Stream) -> None:
    logging = Logging(level="INFO", form="json", stream=stream.file)

    logging.log.debug("unheard")
    logging.say_more()
    logging.log.debug("heard")
    stdlib.getLogger("library").debug("heard too")
    logging.say_more()  # There is nothing finer.
    for _ in range(4):
        logging.say_less()
    logging.log.warning("unheard again")
    logging.log.error("still heard")
    lines = stream.lines(logging)

    said = [line.get("log_level") or line["event"] for line in lines]
    assert said == [
        "DEBUG", "heard", "heard too", "DEBUG", "INFO", "WARNING", "ERROR", "ERROR", "still heard",
    ]  # fmt: skip


def test_the_loquacious_stay_quiet_at_any_level(stream: Stream) -> None:
    logging = Logging(level="DEBUG", form="json", stream=stream.file)

    for name in QUIET_LOGGERS:
        stdlib.getLogger(name).info("a header: %s", SECRET)
    stdlib.getLogger("uvicorn.error").setLevel(stdlib.CRITICAL)  # As the server does.
    logging.say_more()
    stdlib.getLogger("uvicorn.error").error("better said by us")
    for name in QUIET_LOGGERS:
        stdlib.getLogger(f"{name}.child").debug("a header: %s", SECRET)
    for _ in range(3):
        logging.say_less()
    stdlib.getLogger("httpx2").warning("too fine for ERROR")

    assert {line["event"] for line in stream.lines(logging)} == {"log level changed"}


def test_a_file_gets_every_line_as_json_while_the_stream_keeps_its_form(
    stream: Stream, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "for" / "it" / "gateway.log"
    logging = Logging(level="INFO", form="console", file=path, stream=stream.file)

    logging.log.info("hello", upstream="u")
    logging.close()

    assert json.loads(path.read_text())["upstream"] == "u"
    assert stream.path.read_text().split()[1:] == ["[info", "]", "hello", "upstream=u"]
    assert oct(path.stat().st_mode & 0o777) == "0o640"


def test_a_moved_file_is_opened_anew_and_no_line_is_lost(stream: Stream, tmp_path: Path) -> None:
    path, moved = tmp_path / "gateway.log", tmp_path / "gateway.log.1"
    logging = Logging(level="INFO", form="json", file=path, stream=stream.file)

    logging.log.info("before")
    deadline = time.monotonic() + 5
    while not path.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    path.rename(moved)
    logging.reopen()
    logging.log.info("after")
    logging.close()

    assert json.loads(moved.read_text())["event"] == "before"
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events == ["log file reopened", "after"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LogFileUnusable, match="LOG_FILE="):
        Logging(level="INFO", form="json", file=tmp_path / "x.log")


def test_a_path_that_cannot_be_a_file_is_a_fault_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for path in (tmp_path, tmp_path / "file" / "below.log"):
        with pytest.raises(LogFileUnusable, match=f"LOG_FILE={path}: cannot be written"):
            Logging(level="INFO", form="json", file=path, stream=sys.__stdout__)


def test_a_full_disk_is_said_and_counted_and_ends_nothing(stream: Stream) -> None:
    logging = Logging(level="INFO", form="json", file=Path("/dev/full"), stream=stream.file)

    for number in range(50):
        logging.log.info("line", number=number)
    lines = stream.lines(logging)

    assert logging.dropped_lines >= 50
    assert len(lines) == 51
    (said,) = [line for line in lines if line["event"] == "the log file cannot be written"]
    assert said["error"] == "No space left on device"


def test_levels_change_while_others_write(stream: Stream) -> None:
    logging = Logging(level="INFO", form="json", stream=stream.file)
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            logging.log.info("x")
            stdlib.getLogger("library").info("y")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        logging.say_more()
        logging.say_less()
    end.set()
    for thread in threads:
        thread.join()

    assert len([line for line in stream.lines(logging) if "log_level" in line]) == 400
