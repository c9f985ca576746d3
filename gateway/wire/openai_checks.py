"""Typed reading of request fields: the right type, or a 400 that names the parameter."""

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.errors import InvalidRequest

MODEL_NAME_MAX: Final = 512


def require_short(model: str) -> str:
    """A name that many aliases could stand for is written into every event of the answer."""
    if len(model) > MODEL_NAME_MAX:
        raise InvalidRequest(
            f"'model' must be at most {MODEL_NAME_MAX} characters long.", param="model"
        )
    return model


class Fields:
    """The fields of a request, or of the object `within` it. Null reads as absent, as in vLLM."""

    __slots__ = ("values", "within")

    def __init__(self, values: Mapping[str, object], *, within: str = "") -> None:
        self.values = values
        self.within = within

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def model(self) -> str:
        """The model's name; empty where none is given."""
        return require_short(self.text("model"))

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if value is None or value is False:
            return False
        if value is not True:
            raise self._wrong(name, "true or false")
        return True

    def integer(self, name: str, *, least: int, most: int = 2**31 - 1) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if type(value) is not int:
            raise self._wrong(name, "an integer")
        if not least <= value <= most:
            raise InvalidRequest(
                f"{self._path(name)!r} must be between {least} and {most}.", param=self._path(name)
            )
        return value

    def object(self, name: str) -> Mapping[str, object]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def require_objects(self, name: str) -> None:
        value = self.values.get(name)
        if not isinstance(value, list) or not value or set(map(type, value)) != {dict}:
            raise self._wrong(name, "a list of objects, and not empty")

    def require_input(self) -> None:
        """The `input` of /v1/responses, which must be answered while the caller waits."""
        if self.flag("background"):
            raise InvalidRequest(
                "Answers in the background are not offered: nobody would count their tokens.",
                code="unsupported_parameter",
                param="background",
            )
        if not isinstance(self.values.get("input"), str):
            self.require_objects("input")

    def require_one_of(self, name: str, allowed: Sequence[str]) -> None:
        """A word out of a few, where it is given at all."""
        if self.text(name) not in ("", *allowed):
            words = " or ".join(repr(word) for word in allowed)
            raise InvalidRequest(f"{self._path(name)!r} must be {words}.", param=self._path(name))

    def require_side(self, name: str) -> None:
        """One side of a comparison: a text, parts of other media, or a list of them."""
        value = self.values.get(name)
        if not isinstance(value, str | dict | list) or value == []:
            raise self._wrong(name, "a text or a list of texts, and not empty")

    def holds_conversation(self) -> bool:
        """True for vLLM's embeddings of one conversation or of a list of them."""
        value = self.values.get("messages", self.values.get("input"))
        for _ in range(2):
            value = value[0] if isinstance(value, list) and value else value
        return isinstance(value, dict)

    def _wrong(self, name: str, expected: str) -> InvalidRequest:
        is_missing = self.values.get(name) is None
        return InvalidRequest(
            f"{self._path(name)!r} must be {expected}.",
            code="missing_required_parameter" if is_missing else "invalid_type",
            param=self._path(name),
        )

    def _path(self, name: str) -> str:
        return f"{self.within}.{name}" if self.within else name
