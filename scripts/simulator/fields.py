"""Lenient reading of a JSON body, the way pydantic's lax mode reads it for vLLM."""

import orjson

from scripts.simulator.errors import bad_request, invalid, unreadable_body

_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


class Fields:
    """A JSON object whose members are asked for by name and type; null counts as absent."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[str, object]) -> None:
        self._raw = raw

    @classmethod
    def parse(cls, body: bytes) -> "Fields":
        """Raises ApiError (400) for anything but a JSON object."""
        try:
            raw = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            if not body:
                raise invalid("body", "Field required", "missing") from None
            if not _is_text(body):
                raise unreadable_body() from None
            raise invalid(f"body.{error.pos}", "JSON decode error", "json_invalid") from None
        if not isinstance(raw, dict):
            raise invalid("body", "Input should be a valid dictionary", "model_attributes_type")
        return cls(raw)

    def members(self) -> dict[str, object]:
        """All of it, unread."""
        return self._raw

    def get(self, name: str) -> object:
        return self._raw.get(name)

    def require(self, name: str) -> object:
        """Raises ApiError (400) when the member is missing or null."""
        value = self._raw.get(name)
        if value is None:
            raise invalid(f"body.{name}", "Field required", "missing")
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self._raw.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise invalid(f"body.{name}", "Input should be a valid string", "string_type")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self._raw.get(name)
        if value is None:
            return default
        word = str(value).lower()
        if isinstance(value, bool | int | str) and word in _TRUE | _FALSE:
            return word in _TRUE
        raise invalid(f"body.{name}", "Input should be a valid boolean", "bool_parsing")

    def integer(self, name: str) -> int | None:
        value = self._raw.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
            return int(value)
        raise invalid(f"body.{name}", "Input should be a valid integer", "int_parsing")

    def at_least(self, minimum: int, name: str, default: int) -> int:
        """An integer no smaller than `minimum`; raises ApiError (400) below it."""
        value = self.integer(name)
        if value is None:
            return default
        if value < minimum:
            # vLLM names the parameter for some of these, not for others.
            param = None if name == "n" else name
            raise bad_request(f"{name} must be at least {minimum}, got {value}.", param)
        return value

    def items(self, name: str) -> list[object]:
        """The members of a required array."""
        value = self.require(name)
        if not isinstance(value, list):
            raise invalid(f"body.{name}", "Input should be a valid list", "list_type")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._raw.get(name)
        if value is None:
            return default
        try:
            return float(str(value))
        except ValueError:
            raise invalid(
                f"body.{name}", "Input should be a valid number", "float_parsing"
            ) from None

    def nested(self, name: str) -> "Fields":
        """A member object; an empty one when absent."""
        value = self._raw.get(name)
        if value is None:
            return Fields({})
        if not isinstance(value, dict):
            raise invalid(f"body.{name}", "Input should be a valid dictionary", "dict_type")
        return Fields(value)


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
