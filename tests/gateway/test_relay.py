"""The stream between an upstream and a client: order, ends, errors, and no delay."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gateway.errors import GatewayError, UpstreamFailed, UpstreamTimeout, UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.relay import Audience, Meter, relay
from tests.fakes.call import DONE, ERROR, TOKEN, FakeReader, RecordingClient


class ScriptedAnswer:
    """An UpstreamAnswer whose reads a test wrote down; after them it ends, fails or hangs."""

    status = 200
    content_type = b"text/event-stream"
    retry_after_seconds = None

    def __init__(
        self,
        *chunks: bytes,
        error: GatewayError | None = None,
        hangs: bool = False,
    ) -> None:
        self._chunks = list(chunks)
        self._error = error
        self._hangs = hangs
        self.is_seen_out = False

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        while self._chunks:
            if not take(self._chunks.pop(0)):
                return True
        if self._error is not None:
            raise self._error
        if self._hangs:
            await asyncio.Event().wait()
        return False

    async def read(self, *, limit_bytes: int) -> bytes:
        raise AssertionError("a stream is read chunk by chunk")

    def take_unread(self) -> bytes:
        unread, self._chunks = b"".join(self._chunks), []
        return unread

    def see_out(self) -> None:
        self.is_seen_out = True

    def close(self) -> None:
        raise AssertionError("whoever opened the answer closes it")


class Passage:
    """One relay from an answer to a recording client."""

    def __init__(self, answer: ScriptedAnswer) -> None:
        self.answer = answer
        self.client = RecordingClient()
        self.reader = FakeReader()
        self.contents_heard = self.reads_heard = 0
        self.sent_before_end: int | None = None

    async def run(self) -> None:
        await relay(
            self.answer,
            reader=self.reader,
            client=self.client,
            on_content=self._hear_content,
            on_events=self._hear_events,
            on_end=self._hear_end,
        )

    def _hear_content(self) -> None:
        self.contents_heard += 1

    def _hear_events(self) -> None:
        self.reads_heard += 1

    def _hear_end(self) -> None:
        self.sent_before_end = len(self.client.sent)


async def passed(*chunks: bytes, error: GatewayError | None = None) -> Passage:
    passage = Passage(ScriptedAnswer(*chunks, error=error))
    await passage.run()
    return passage


async def failing(
    error: type[GatewayError], chunks: Sequence[bytes], by: GatewayError | None = None
) -> Passage:
    passage = Passage(ScriptedAnswer(*chunks, error=by))
    with pytest.raises(error):
        await passage.run()
    return passage


async def test_every_read_becomes_one_send_in_order() -> None:
    passage = await passed(b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", DONE)
    assert passage.client.sent == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", DONE]
    assert passage.client.is_finished


async def test_a_read_that_completes_no_event_is_no_send() -> None:
    passage = await passed(b"data: to", b"ken\n", b"\n", DONE)
    assert passage.client.sent == [TOKEN, DONE]


async def test_the_first_content_is_told_once_and_not_before_it_comes() -> None:
    assert (await passed(b"data: role\n\n", DONE)).contents_heard == 0
    assert (await passed(b"data: role\n\n", TOKEN, TOKEN, TOKEN, DONE)).contents_heard == 1
    assert (await passed(TOKEN + DONE)).contents_heard == 1


async def test_reads_with_events_are_told_from_the_first_content_on() -> None:
    assert (await passed(b"data: role\n\n", TOKEN, TOKEN + TOKEN, DONE)).reads_heard == 3
    assert (await passed(TOKEN, b"data: tok", b"en\n\n", DONE)).reads_heard == 3
    assert (await passed(b"data: role\n\n", DONE)).reads_heard == 0


async def test_the_end_is_told_before_the_client_has_the_last_of_it() -> None:
    assert (await passed(TOKEN, DONE)).sent_before_end == 1
    broken = await failing(UpstreamTruncated, [TOKEN, b"data: hal"])
    assert broken.sent_before_end is None


async def test_after_the_terminator_the_answer_is_seen_out_by_the_connection() -> None:
    assert (await passed(TOKEN, DONE)).answer.is_seen_out


async def test_what_follows_the_terminator_is_dropped() -> None:
    passage = await passed(TOKEN, DONE, b"data: more\n\n")
    assert passage.client.received == TOKEN + DONE


async def test_an_upstream_that_hangs_after_the_terminator_holds_nothing_up() -> None:
    passage = Passage(ScriptedAnswer(TOKEN, DONE, hangs=True))
    async with asyncio.timeout(0.5):
        await passage.run()
    assert passage.client.is_finished


async def test_what_a_client_that_left_did_not_take_is_counted_all_the_same() -> None:
    passage = Passage(ScriptedAnswer(TOKEN, TOKEN + TOKEN))
    passage.client.hold = asyncio.Event()
    call = asyncio.create_task(passage.run())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert passage.reader.usage.output_tokens == 3


async def test_a_failure_in_the_stream_is_raised_after_the_events_before_it() -> None:
    passage = await failing(UpstreamFailed, [b"data: role\n\n", TOKEN + ERROR + DONE])
    assert passage.client.sent == [b"data: role\n\n", TOKEN]
    assert not passage.client.is_finished


async def test_a_failure_first_thing_sends_nothing() -> None:
    passage = await failing(UpstreamFailed, [ERROR])
    assert passage.client.sent == []


@pytest.mark.parametrize("error", [UpstreamTruncated("cut"), UpstreamTimeout("silent")])
async def test_an_upstream_that_dies_leaves_whole_events_and_no_end(error: GatewayError) -> None:
    passage = await failing(type(error), [TOKEN, b"data: hal"], by=error)
    assert passage.client.sent == [TOKEN]
    assert not passage.client.is_finished


async def test_an_end_without_the_terminator_is_a_truncation() -> None:
    passage = await failing(UpstreamTruncated, [TOKEN])
    assert passage.client.received == TOKEN
    assert not passage.client.is_finished


async def test_a_slow_client_stops_the_reading() -> None:
    passage = Passage(ScriptedAnswer(TOKEN, TOKEN, DONE))
    passage.client.hold = asyncio.Event()
    call = asyncio.create_task(passage.run())
    await asyncio.sleep(0.01)
    assert passage.reader.usage.output_tokens == 1
    passage.client.hold.set()
    await call
    assert passage.client.received == TOKEN + TOKEN + DONE


async def test_cancelled_it_ends_at_once() -> None:
    passage = Passage(ScriptedAnswer(TOKEN, hangs=True))
    call = asyncio.create_task(passage.run())
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not passage.client.is_finished


# Meter and audience


def test_a_meter_shows_the_streams_running_count() -> None:
    settled: list[TokenUsage] = []
    meter, reader = Meter(settle=settled.append), FakeReader()
    meter.follow(reader)
    reader.feed(TOKEN + TOKEN)
    assert meter.usage == TokenUsage(10, 2)
    assert meter.close() == TokenUsage(10, 2)
    assert settled == [TokenUsage(10, 2)]


def test_a_final_word_takes_the_place_of_the_running_count() -> None:
    settled: list[TokenUsage] = []
    meter = Meter(settle=settled.append)
    meter.follow(FakeReader())
    meter.conclude(TokenUsage(7, 0, is_estimated=True))
    assert settled[0] == meter.usage == TokenUsage(7, 0, is_estimated=True)


async def test_all_is_settled_before_the_client_hears_the_end() -> None:
    settled: list[TokenUsage] = []
    meter, reader, client = Meter(settle=settled.append), FakeReader(), RecordingClient()
    audience = Audience(client, meter)
    meter.follow(reader)
    await audience.send(reader.feed(TOKEN))
    assert (audience.has_heard, settled) == (True, [])
    finishing = audience.finish(reader.feed(DONE))
    assert (settled, client.is_finished) == ([TokenUsage(10, 1)], False)
    await finishing
    assert client.is_finished


async def test_an_audience_that_was_sent_nothing_has_heard_nothing() -> None:
    assert not Audience(RecordingClient(), Meter(settle=lambda _: None)).has_heard
