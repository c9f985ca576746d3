"""Usage per key, day and model as Redis keeps it, for a ledger and for `gateway usage`."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Final

from gateway.quota.report import UsageRow
from gateway.shared.line import Line
from gateway.shared.tables import Tables

_AT_ONCE = 50
_KINDS: Final = (b"i", b"o", b"n", b"x")


class RedisHistory:
    """Rows of one key, asked of a running gateway's line a few days at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def rows(self, key_id: str, *, days: Iterable[date]) -> tuple[UsageRow, ...]:
        """Raises RedisSilent."""
        found: list[UsageRow] = []
        wanted = list(days)
        for at in range(0, len(wanted), _AT_ONCE):
            some = wanted[at : at + _AT_ONCE]
            commands = [("HGETALL", rows_name(day, key_id)) for day in some]
            for day, flat in zip(some, await self._line.ask_all(*commands), strict=True):
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                found += rows_of(day, key_id, fields)
        return tuple(found)


def read_shared_rows(tables: Tables, *, days: Iterable[date]) -> tuple[UsageRow, ...]:
    """Rows of all keys. Raises RedisUnusable."""
    found: list[UsageRow] = []
    for day in days:
        key_ids = sorted(name.decode() for name in tables.hash(f"gateway:used:{day}"))
        for at in range(0, len(key_ids), _AT_ONCE):
            some = key_ids[at : at + _AT_ONCE]
            hashes = tables.hashes([rows_name(day, key_id) for key_id in some])
            for key_id, fields in zip(some, hashes, strict=True):
                found += rows_of(day, key_id, fields)
    return tuple(found)


def rows_name(day: date, key_id: str) -> str:
    return f"gateway:usage:{day}:{key_id}"


def rows_of(day: date, key_id: str, fields: Mapping[bytes, bytes]) -> list[UsageRow]:
    """The hash of a key and day: i, o, n and x of each model, as settle.lua counts them."""
    models = sorted({name[1:] for name in fields})
    return [
        UsageRow(day, key_id, model.decode(), *(int(fields.get(k + model, 0)) for k in _KINDS))
        for model in models
    ]
