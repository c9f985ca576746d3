"""Names that clients use for models that are called something else here."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

PATTERN_SIGNS: Final = "*?["
_NAME_MAX: Final = 256


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in PATTERN_SIGNS)


class Aliases:
    """Exact names first, then patterns (`*`, `?`, `[...]`), the longest first."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self.exact = {name: target for name, target in targets.items() if not is_pattern(name)}
        patterns = [(name, target) for name, target in targets.items() if is_pattern(name)]
        self._patterns = sorted(patterns, key=lambda pair: (-len(pair[0]), pair[0]))

    def __len__(self) -> int:
        return len(self.exact) + len(self._patterns)

    def target(self, name: str) -> str | None:
        """The model that is meant by a name; None if the name stands for nothing."""
        exact = self.exact.get(name)
        if exact is not None:
            return exact
        if len(name) > _NAME_MAX:
            return None
        matching = (target for pattern, target in self._patterns if fnmatchcase(name, pattern))
        return next(matching, None)
