"""A bounded memory of prompt prefixes, in blocks of sixteen tokens as vLLM keeps them."""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16


def block_keys(pieces: Sequence[object], salt: str = "") -> tuple[int, ...]:
    """One key per full block; each stands for the whole prompt up to its end."""
    key = hash(salt)
    keys = []
    for start in range(0, len(pieces) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        key = hash((key, *pieces[start : start + BLOCK_TOKENS]))
        keys.append(key)
    return tuple(keys)


class PrefixCache:
    """Which prefixes have been computed, the least recently used forgotten first."""

    def __init__(self, *, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def visit(self, keys: Sequence[int], prompt_tokens: int) -> int:
        """Tokens of a prompt found here; afterwards all its full blocks are remembered.

        The last token is never a hit: something must be computed to get an answer.
        """
        if not keys:
            return 0
        known = 0
        while known < len(keys) and keys[known] in self._blocks:
            known += 1
        self._remember(keys)
        return min(known, (prompt_tokens - 1) // BLOCK_TOKENS) * BLOCK_TOKENS

    def _remember(self, keys: Sequence[int]) -> None:
        blocks = self._blocks
        # The tail is touched first, so that a prompt's head outlives it.
        for key in reversed(keys):
            blocks[key] = None
            blocks.move_to_end(key)
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)
