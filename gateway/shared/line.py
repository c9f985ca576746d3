"""Line: one connection to Redis with many questions under way on it, answered in order."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from gateway.clock import Clock
from gateway.shared.config import RedisConfig, RedisLate, RedisSilent, RedisUnusable
from gateway.shared.dialling import Dialler, Part, packed
from gateway.shared.script import Script

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
# So many answers in a row that did not come in time, and the connection is given up.
_LATE_MAX = 3
_LAST_TURNS = 3
_NOT_YET = "not connected yet"

Reply = Any  # What Redis may say: bytes, int, None, lists of these.


class Asked(NamedTuple):
    """Questions under way, and since when."""

    at: float
    futures: list[asyncio.Future[Reply]]
    timer: asyncio.TimerHandle | None


class Line:
    """Asks Redis, and is quick to say that there is nobody.

    All questions share one connection and leave together once per tick of the loop; Redis
    answers in the order they were asked in, which is what the ledger's view relies on. While
    the connection is down every question fails at once: it costs a call a microsecond, not a
    time-out. A task of its own connects again, and makes the `scripts` known. Entering raises
    RedisUnusable if Redis cannot be reached within `start_seconds`.
    """

    def __init__(
        self,
        config: RedisConfig,
        *,
        clock: Clock,
        observe: Callable[[float], None] = lambda _: None,
        on_down: Callable[[str], None] = lambda _: None,
        on_up: Callable[[str], None] = lambda _: None,
        scripts: tuple[Script, ...] = (),
        start_seconds: float = 5.0,
    ) -> None:
        self._config = config
        self._clock = clock
        self._observe = observe
        self._on_down = on_down
        self._on_up = on_up
        self._dialler = Dialler(config, scripts=scripts)
        self._start_seconds = start_seconds
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._unsent: list[bytes] = []
        self._has_unsent = asyncio.Event()
        self._broken = asyncio.Event()
        self._broken_by = ""
        self._up = asyncio.Event()
        self._late = 0
        self._task: asyncio.Task[None] | None = None
        self.trouble: str | None = _NOT_YET
        self.errors_total = 0

    @property
    def is_up(self) -> bool:
        return self.trouble is None

    @property
    def timeout_seconds(self) -> float:
        return self._config.timeout_seconds

    async def until_up(self) -> None:
        await self._up.wait()

    async def __aenter__(self) -> "Line":
        self._task = asyncio.create_task(self._run(), name="redis-line")
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._up.wait()
        except TimeoutError:
            cause = self.trouble or "no answer"
            await self.__aexit__(None, None, None)
            raise self.unusable(cause) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._fail_all("the gateway is ending")

    async def run(self, script: Script, *parts: Part) -> Reply:
        """What the script returns. Raises RedisSilent."""
        try:
            return await self.ask(b"EVALSHA", script.digest, b"0", *parts)
        except NoScriptError:
            # Redis was restarted or told to forget; nothing of it was done.
            await self.ask(b"SCRIPT", b"LOAD", script.text)
            return await self.ask(b"EVALSHA", script.digest, b"0", *parts)

    async def ask(self, *parts: Part) -> Reply:
        """The answer to one command. Raises RedisSilent, and NoScriptError for a script that
        Redis does not know."""
        (reply,) = await self.ask_all(parts)
        return reply

    async def ask_all(self, *commands: tuple[Part, ...]) -> list[Reply]:
        """The answers to several, sent together. Raises as `ask` does."""
        return await self.heard(self.post(*commands))

    def post(self, *commands: tuple[Part, ...]) -> "Asked":
        """Ask without waiting: before whatever is asked next. Raises RedisSilent."""
        if self.trouble is not None:
            raise RedisSilent(self.trouble)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Reply]] = [loop.create_future() for _ in commands]
        self._waiting.extend(futures)
        self._unsent += [packed(command) for command in commands]
        self._has_unsent.set()
        timer = loop.call_later(self._config.timeout_seconds, self._expire, futures, _LAST_TURNS)
        return Asked(self._clock.monotonic(), futures, timer)

    def post_script(self, script: Script, *parts: Part) -> "Asked":
        """`run` without waiting; what is heard may be a NoScriptError."""
        return self.post((b"EVALSHA", script.digest, b"0", *parts))

    async def heard(self, asked: "Asked") -> list[Reply]:
        """The answers to what was posted. Raises as `ask` does."""
        try:
            replies = [await future for future in asked.futures]
        except (NoScriptError, RedisSilent):
            raise
        except RedisError as error:
            raise self._refused(error) from None
        finally:
            self.ignore(asked)
        self._late = 0
        self._observe(self._clock.monotonic() - asked.at)
        return replies

    @staticmethod
    def ignore(asked: "Asked") -> None:
        """An answer that still comes is nobody's."""
        if asked.timer is not None:
            asked.timer.cancel()
        for future in asked.futures:
            if not future.cancel() and not future.cancelled():
                future.exception()

    def unusable(self, cause: str) -> RedisUnusable:
        """For who cannot go on without it."""
        return RedisUnusable(self._config.place, cause=cause)

    def _expire(self, futures: list[asyncio.Future[Reply]], turns: int) -> None:
        """Time is up; but if it was our loop that was late, the answer is there, a few turns on."""
        waiting = [future for future in futures if not future.done()]
        if not waiting:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._expire, waiting, turns - 1)
            return
        self.errors_total += 1
        self._late += 1
        if self._late >= _LATE_MAX:
            self._break(f"no answer within {self._config.timeout_seconds:g} s, {_LATE_MAX} times")
        for future in waiting:
            future.set_exception(RedisLate(f"no answer within {self._config.timeout_seconds:g} s"))

    def _refused(self, error: RedisError) -> RedisSilent:
        self.errors_total += 1
        if isinstance(error, ReadOnlyError):
            # A replica by now: who is asked anew may be the new primary.
            self._break(str(error))
        return RedisSilent(f"it answered: {error}")

    def _break(self, reason: str) -> None:
        self._broken_by = reason
        self._broken.set()

    async def _run(self) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._dialler.connected() as connection:
                    pause_seconds = _FIRST_PAUSE_SECONDS
                    self._go_up()
                    reason = await self._serve(connection)
            except (RedisError, OSError, TimeoutError) as error:
                reason = str(error) or "no answer to the greeting"
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
            self._go_down(reason)
            await asyncio.sleep(pause_seconds)

    async def _serve(self, connection: Connection) -> str:
        """Until the connection is no good; says why."""
        reader = asyncio.create_task(self._read(connection), name="redis-reader")
        writer = asyncio.create_task(self._write(connection), name="redis-writer")
        broken = asyncio.create_task(self._until_broken(), name="redis-broken")
        tasks = (reader, writer, broken)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):
                if task.done() and not task.cancelled():
                    return str(task.exception())
            return self._broken_by
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # It was told, or comes of the ending.

    async def _until_broken(self) -> None:
        await self._broken.wait()

    async def _write(self, connection: Connection) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            commands, self._unsent = self._unsent, []
            await connection.send_packed_command(b"".join(commands), False)

    async def _read(self, connection: Connection) -> None:
        while True:
            reply: Reply
            try:
                reply = await connection.read_response(
                    disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                )
            except ResponseError as error:
                reply = error
            future = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, ResponseError):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def _go_up(self) -> None:
        trouble, self.trouble = self.trouble, None
        self._late = 0
        self._broken.clear()
        self._up.set()
        if trouble is not None and trouble != _NOT_YET:
            self._on_up(trouble)

    def _go_down(self, reason: str) -> None:
        was_up, self.trouble = self.trouble is None, reason
        self._up.clear()
        self.errors_total += 1
        self._fail_all(reason)
        if was_up:
            self._on_down(reason)

    def _fail_all(self, reason: str) -> None:
        self.trouble = reason
        self._unsent.clear()
        self._has_unsent.clear()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(RedisLate(reason))
