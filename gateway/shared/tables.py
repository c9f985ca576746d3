"""Tables: hashes in the shared Redis, read and changed as a whole; for keys and commands."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
from redis.retry import Retry

from gateway.shared.config import RedisConfig, RedisUnusable

PATIENCE_SECONDS = 5.0
_PASSWORD = "Correct the user and password in it"  # noqa: S105 - words about one
# ARGV: name of the version, the version expected or '', the new one, then table, field, value.
_COMMIT = """
local version = redis.call('GET', ARGV[1]) or ''
if version ~= ARGV[2] then return 0 end
redis.call('SET', ARGV[1], ARGV[3])
for at = 4, #ARGV, 3 do redis.call('HSET', ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
return 1
"""

Table = dict[bytes, bytes]


class Tables:
    """Every method blocks for a moment and raises RedisUnusable.

    Text goes in, bytes come out. A `version` guards what is read and changed together.
    """

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        self._client: redis.Redis = redis.Redis.from_url(
            config.url,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            client_name="vllm-gateway-keys",
            # Who asks again is who knows how long he can wait.
            retry=Retry(NoBackoff(), 0),
        )

    def texts(self, *names: str) -> list[bytes | None]:
        """Plain values."""
        with self._explained():
            found: list[bytes | None] = list(self._answer(self._client.mget(names)))
            return found

    def hash(self, name: str) -> Table:
        return self.hashes([name])[0]

    def hashes(self, names: Sequence[str]) -> list[Table]:
        """All of them at one instant."""
        with self._explained():
            pipeline = self._client.pipeline(transaction=True)
            for name in names:
                pipeline.hgetall(name)
            found: list[Table] = pipeline.execute()
            return found

    def snapshot(self, version: str, tables: Sequence[str]) -> tuple[bytes, list[Table]]:
        """The version, empty where there is none, and the tables at the same instant."""
        with self._explained():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.get(version)
            for name in tables:
                pipeline.hgetall(name)
            found, *rest = pipeline.execute()
            return found or b"", rest

    def commit(
        self,
        version: str,
        changes: Mapping[str, Mapping[str, str]],
        *,
        expected: bytes,
        new: str,
    ) -> bool:
        """Set fields, all or none; False if somebody else changed something since `expected`."""
        flat = [
            part
            for name, fields in changes.items()
            for f, v in fields.items()
            for part in (name, f, v)
        ]
        with self._explained():
            done = self._answer(self._client.eval(_COMMIT, 0, version, expected, new, *flat))
            return bool(done)

    def set(self, name: str, value: str) -> None:
        with self._explained():
            self._client.set(name, value)

    def set_if_absent(self, name: str, value: str) -> None:
        with self._explained():
            self._client.set(name, value, nx=True)

    def facts(self) -> dict[str, Any]:
        """Redis about itself: what INFO says of server and memory."""
        with self._explained():
            found: dict[str, Any] = {}
            for section in ("server", "memory", "persistence"):
                found |= self._answer(self._client.info(section))
            return found

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _answer(value: Any) -> Any:
        """redis types its answers for clients that wait and clients that do not, alike."""
        return value

    @contextmanager
    def _explained(self) -> Iterator[None]:
        place = self._config.place
        try:
            yield
        except (AuthenticationError, AuthorizationError) as error:
            raise RedisUnusable(place, cause=str(error), cure=_PASSWORD) from error
        except (RedisError, OSError) as error:
            raise RedisUnusable(place, cause=f"it cannot be used ({error})") from error
