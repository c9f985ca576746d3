"""The ports of a key store: what a running gateway asks of it, and what the commands do to it."""

from typing import Protocol

from gateway.auth.keyring import KeyDefaults
from gateway.auth.keystore import KeySnapshot
from gateway.auth.record import KeyRecord, KeyTerms


class KeySource(Protocol):
    """Keys as a running gateway follows them. Every method blocks for a moment and raises
    DatabaseUnusable."""

    def prepare(self) -> None:
        """Make what is missing."""
        ...

    def version(self) -> tuple[str, str]:
        """The store's id and a word that changes with every change of a key; cheap."""
        ...

    def snapshot(self, defaults: KeyDefaults) -> KeySnapshot: ...


class KeyRegister(Protocol):
    """Keys as the commands change them; KeyStore says what each method does and raises."""

    def create(self, name: str, terms: KeyTerms) -> tuple[KeyRecord, str]: ...
    def records(self) -> tuple[KeyRecord, ...]: ...
    def get(self, reference: str) -> KeyRecord: ...
    def revoke(self, reference: str) -> KeyRecord: ...
    def rotate(self, reference: str, *, grace_seconds: float = 0.0) -> tuple[KeyRecord, str]: ...
