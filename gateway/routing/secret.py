"""A text that must not be shown: a key of ours to an upstream, or of a client to us."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that shows itself only when asked; empty means none."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(...)"


NO_SECRET = Secret("")
