"""The books of the gateway against what callers were told, call by call and key by key.

- What is charged to a key is the sum of what its log lines say, and what the database has.
- A call whose answer came whole is charged what that answer said: the upstream's own count.
- A call that was left or cut is charged its prompt and what was generated until then: at least what
  arrived, at most what was asked for. If nothing had been reported yet it is charged the estimated
  prompt, and its line says so; so do the lines of dialects whose upstream tells its counts only at
  the end, for which events were counted.
- A call that was refused or failed before its answer began is charged nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from gateway.quota.history import read_rows
from tests.soak.told import Told

UNTOLD_PER_KILL: Final = 100
SERIOUS: Final = ("error", "critical")
# Written when the soak wants it: a file of upstreams that cannot be used.
EXPECTED_ERRORS: Final = frozenset(
    {"the upstreams file cannot be used; the upstreams stay as they were"}
)


@dataclass(slots=True)
class Books:
    """Grows with every `balance`. `wrong` holds what does not agree, with how often."""

    log: Path
    database: Path
    began: date
    wrong: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    _charged: Counter[str] = field(default_factory=Counter)
    _prompts: dict[tuple[str, str], int] = field(default_factory=dict)
    _read_bytes: int = 0

    def balance(self, told: Iterable[Told]) -> None:
        """At rest: what was told since the last time, the lines since then, and the database."""
        lines: dict[str, dict[str, Any]] = {}
        for line in self._new_lines():
            if line.get("event") == "request" and "key_id" in line and "input_tokens" in line:
                self._charged[line["key_id"]] += line["input_tokens"] + line["output_tokens"]
            if line.get("event") == "request":
                lines[line["request_id"]] = line
            elif line.get("level") in SERIOUS and line["event"] not in EXPECTED_ERRORS:
                self._note("an error in the log", json.dumps(line))
        for each in sorted(told, key=lambda call: call.usage is None):
            self._check(each, lines.get(each.request_id))
        self._check_database()

    def _check(self, told: Told, line: dict[str, Any] | None) -> None:
        if line is None:
            is_heard = told.status != 0 or told.usage is not None
            self.calls["never complete"] += not is_heard
            if is_heard:
                self._note("a call without a line", str(told))
            return
        used = line.get("input_tokens", 0), line.get("output_tokens", 0)
        about = f"{told} {line}"
        if told.usage is not None:
            self._tally("answered", used)
            self._check_whole(told, used, about)
        elif told.kind == "tokenize" or line["outcome"] == "rejected":
            self._tally("free or refused", used)
            self._require(used == (0, 0), "a free or refused call was charged", about)
        elif line.get("usage_estimated") and not used[1]:
            self._tally("estimated", used)
            self._require(used[0] > 0, "an estimate that is none", about)
        elif told.status not in (0, 200):
            self._tally("failed", used)
            self._require(used == (0, 0), "a failed call was charged", about)
        else:
            self._tally("left or cut", used)
            is_counted = not line.get("usage_estimated")
            self._check_part(told, used, about, is_counted=is_counted)

    def _check_whole(self, told: Told, used: tuple[int, int], about: str) -> None:
        self._require(used == told.usage, "a whole answer charged otherwise", about)
        known = self._prompts.setdefault((told.kind, told.prompt), used[0])
        if told.kind in ("stream", "whole"):
            self._require(used[0] == known, "alike prompts counted otherwise", about)

    def _check_part(
        self, told: Told, used: tuple[int, int], about: str, *, is_counted: bool
    ) -> None:
        self._require(told.seen_tokens <= used[1], "less charged than arrived", about)
        self._require(used[1] <= told.most_tokens, "more charged than was asked for", about)
        prompt = self._prompts.get(("stream", told.prompt))
        if is_counted and prompt is not None and used[1]:
            self._require(used[0] == prompt, "a prompt charged otherwise", about)

    def _check_database(self) -> None:
        booked: Counter[str] = Counter()
        for row in read_rows(self.database, since=self.began - timedelta(days=1)):
            booked[row.key_id] += row.input_tokens + row.output_tokens
        for key_id in booked.keys() | self._charged.keys():
            pair = f"{key_id}: booked {booked[key_id]}, lines {self._charged[key_id]}"
            self._require(
                booked[key_id] == self._charged[key_id], "the database disagrees with the log", pair
            )

    def invented(self, *, generated: int, kills: int) -> list[str]:
        """A complaint if more was charged, estimates aside, than the simulators generated. What
        one generated between its last count and its kill it could not tell."""
        charged = self.charged_tokens - self.tokens["estimated"]
        if charged <= generated + UNTOLD_PER_KILL * kills:
            return []
        return [f"{charged} tokens charged, and only {generated} generated"]

    @property
    def charged_tokens(self) -> int:
        return self._charged.total()

    @property
    def charged_by_key(self) -> dict[str, int]:
        return dict(self._charged)

    def _new_lines(self) -> Iterable[dict[str, Any]]:
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            for raw in log:
                if not raw.endswith(b"\n"):
                    break
                self._read_bytes += len(raw)
                if raw.startswith(b"{"):
                    yield json.loads(raw)
                else:
                    self._note("a line that is no JSON", raw.decode(errors="replace"))

    def _tally(self, how: str, used: tuple[int, int]) -> None:
        self.calls[how] += 1
        self.tokens[how] += sum(used)

    def _require(self, holds: bool, what: str, about: str) -> None:
        if not holds:
            self._note(what, about)

    def _note(self, what: str, about: str) -> None:
        self.wrong[what] += 1
        self.examples.setdefault(what, about[:1500])
