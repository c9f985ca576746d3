"""LogSink: lines reach the descriptor whole and in order, and nobody waits for its reader."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from gateway.telemetry.sink import LINES_MAX, LogSink


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def drained(reader: int, writer: int) -> bytes:
    os.close(writer)
    read = b""
    while part := os.read(reader, 65536):
        read += part
    return read


def test_all_lines_arrive_in_order_by_the_end(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])
    lines = [b"line %d\n" % number for number in range(2000)]

    for line in lines:
        sink.write(line)
    sink.close()

    assert drained(*pipe) == b"".join(lines)


def test_a_line_arrives_without_an_end(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])

    sink.write(b"soon\n")

    assert os.read(pipe[0], 100) == b"soon\n"
    sink.close()


def test_a_signal_handler_may_log_at_any_moment_of_a_write(pipe: tuple[int, int]) -> None:
    moments = 0
    while interrupted_write(LogSink(pipe[1]), moments):
        moments += 1

    lines = drained(*pipe).splitlines()
    assert moments > 1
    assert sorted(lines) == [b"from the handler"] * moments + [b"interrupted"] * (moments + 1)


def interrupted_write(sink: LogSink, moment: int) -> bool:
    """Write a line, and another before the line of Python that the first runs as its `moment`-th,
    as a signal handler does; False if the write has ended by then."""
    left = moment

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal left
        if left == 0:
            sink.write(b"from the handler\n")
        left -= 1
        return trace

    def write() -> None:
        sys.settrace(trace)
        sink.write(b"interrupted\n")
        sys.settrace(None)

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(timeout=5)
    assert not writing.is_alive(), "the write waits for itself"
    sink.close()
    return left < 0


def test_lines_of_several_threads_are_not_mixed(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])

    def write(name: bytes) -> None:
        for _ in range(200):
            sink.write(name * 40 + b"\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()

    lines = drained(*pipe).splitlines()
    assert len(lines) == 600
    assert {bytes(set(line)) for line in lines} == {b"a", b"b", b"c"}


def test_a_reader_that_stands_still_blocks_nobody_and_costs_bounded_memory(
    pipe: tuple[int, int],
) -> None:
    sink = LogSink(pipe[1])
    line = b"x" * 99 + b"\n"

    slowest_seconds = 0.0
    for _ in range(2 * LINES_MAX + 1000):
        began = time.perf_counter()
        sink.write(line)
        slowest_seconds = max(slowest_seconds, time.perf_counter() - began)

    assert slowest_seconds < 0.5
    assert sink.dropped_lines > 0
    os.close(pipe[0])  # The reader has gone: writing ends, and so does closing.
    sink.close()


def test_a_reader_that_stands_still_does_not_keep_the_process_from_ending(
    pipe: tuple[int, int],
) -> None:
    sink = LogSink(pipe[1])
    for _ in range(2000):
        sink.write(b"x" * 99 + b"\n")

    began = time.monotonic()
    sink.close()
    sink.write(b"late\n")

    assert time.monotonic() - began < 2.5
    os.close(pipe[0])


def test_a_reader_that_has_gone_raises_nothing(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])
    os.close(pipe[0])

    sink.write(b"into nothing\n")
    sink.close()


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    sink = LogSink(pipe[1])
    wanted = b"y" * 999 + b"\n"

    received: list[bytes] = []
    reading = threading.Thread(target=_read_slowly, args=(pipe[0], received, 300 * len(wanted)))
    reading.start()
    for _ in range(300):
        sink.write(wanted)
    reading.join()
    sink.close()

    assert b"".join(received) == wanted * 300


def _read_slowly(reader: int, received: list[bytes], size: int) -> None:
    while sum(map(len, received)) < size:
        time.sleep(0.005)
        received.append(os.read(reader, 32_768))
