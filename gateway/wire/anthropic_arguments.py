"""The arguments of one call, while their pieces come: whether the JSON object is whole yet."""

import re
from typing import Final

_INSIDE_STRING: Final = re.compile(r'["\\]')
_OUTSIDE_STRING: Final = re.compile(r'["{}\[\]]')


class Arguments:
    """Follows brackets and strings, each character once.

    Whole is an object whose bracket has closed: nothing but white space can follow it. What
    begins as anything else is never whole, for more digits may follow a number.
    """

    __slots__ = ("_depth", "_is_escaped", "_is_in_string", "_is_object", "is_whole")

    def __init__(self) -> None:
        self.is_whole = False
        self._depth = 0
        self._is_object: bool | None = None
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, piece: str) -> None:
        if self._is_object is None:
            begun = piece.lstrip()
            if not begun:
                return
            self._is_object = begun[0] == "{"
        if not self._is_object or self.is_whole:
            return
        at = 1 if self._is_escaped and piece else 0
        self._is_escaped = self._is_escaped and not piece
        while at < len(piece) and not self.is_whole:
            pattern = _INSIDE_STRING if self._is_in_string else _OUTSIDE_STRING
            found = pattern.search(piece, at)
            if found is None:
                return
            at = found.end()
            if found[0] == "\\":
                self._is_escaped = at == len(piece)
                at += 1
            else:
                self._turn(found[0])

    def _turn(self, mark: str) -> None:
        if mark == '"':
            self._is_in_string = not self._is_in_string
            return
        self._depth += 1 if mark in "{[" else -1
        self.is_whole = self._depth == 0
