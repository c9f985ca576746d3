"""What a gateway looks at before it trusts a Redis with its books."""

from dataclasses import dataclass

from gateway.shared.config import RedisUnusable
from gateway.shared.tables import Tables

OLDEST = (7, 0)
_KEEPS_ALL = "noeviction"


@dataclass(frozen=True, slots=True)
class Inspection:
    """Its version, and what an operator should change there."""

    version: str
    warnings: tuple[str, ...]


def inspect(tables: Tables, *, place: str) -> Inspection:
    """Blocks for a moment. Raises RedisUnusable, also for a version that is too old."""
    facts = tables.facts()
    version = str(facts.get("valkey_version") or facts.get("redis_version", "0"))
    if _numbers(str(facts.get("redis_version", version))) < OLDEST:
        raise RedisUnusable(
            place,
            cause=f"it is version {version}",
            cure="Redis 7 or newer, or Valkey, is needed",
        )
    return Inspection(version, tuple(_warnings(facts)))


def _warnings(facts: dict[str, object]) -> list[str]:
    found = []
    policy = str(facts.get("maxmemory_policy", _KEEPS_ALL))
    if facts.get("maxmemory") and policy != _KEEPS_ALL:
        found.append(
            f"maxmemory-policy is {policy}: when its memory is full it forgets keys and usage; "
            f"set it to {_KEEPS_ALL}"
        )
    if facts.get("aof_enabled") == 0:
        found.append(
            "appendonly is off: what it has counted since its last snapshot is lost with it, "
            "unless a gateway that knows it is running; set appendonly to yes"
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
