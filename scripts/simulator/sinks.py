"""Where the engine's tokens go: into one whole answer, or event by event to the client."""

from scripts.simulator.answers import render
from scripts.simulator.events import events_for
from scripts.simulator.reply import Reply
from scripts.simulator.work import Identity, Work


class WholeAnswer:
    """Says nothing until all tokens are there."""

    __slots__ = ("_details", "_identity", "_reply", "_work")

    paused = False

    def __init__(self, reply: Reply, work: Work, identity: Identity, *, details: bool) -> None:
        self._reply = reply
        self._work = work
        self._identity = identity
        self._details = details

    def advance(self, start: int, stop: int) -> None:
        """The text is known beforehand; only the end counts."""

    def finish(self, cached_tokens: int) -> None:
        shown = cached_tokens if self._details else None
        self._reply.send(200, render(self._work, self._identity, shown))


class StreamedAnswer:
    """Sends every token as it comes."""

    __slots__ = ("_choices", "_details", "_events", "_reply")

    def __init__(self, reply: Reply, work: Work, identity: Identity, *, details: bool) -> None:
        self._reply = reply
        self._events = events_for(work, identity)
        self._choices = range(len(work.choices))
        self._details = details
        reply.open_stream()

    @property
    def paused(self) -> bool:
        return self._reply.paused

    def advance(self, start: int, stop: int) -> None:
        out = [] if start else self._events.opening()
        if len(self._choices) == 1:
            out += self._events.tokens(0, start, stop)
        else:
            for step in range(start, stop):
                for index in self._choices:
                    out += self._events.tokens(index, step, step + 1)
        self._reply.write_events(out)

    def finish(self, cached_tokens: int) -> None:
        shown = cached_tokens if self._details else None
        self._reply.write_events(self._events.closing(shown))
        self._reply.end_stream()
