"""Trouble: what the log hears of a fault that lasts, once, and of its end."""

from gateway.telemetry.logs import Log


class Trouble:
    """One kind of it, and the two sentences that tell of it."""

    def __init__(self, log: Log, trouble: str, recovery: str, *, path: str) -> None:
        self._log = log
        self._trouble = trouble
        self._recovery = recovery
        self._path = path

    def failure(self, error: Exception) -> None:
        self._log.error(self._trouble, path=self._path, error=str(error))

    def recovery(self, error: Exception) -> None:
        self._log.warning(self._recovery, after=str(error))
