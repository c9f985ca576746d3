"""A Lua script: its text, and the digest Redis knows it by."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """One script of ours; several gateways may send the same."""

    text: bytes
    digest: bytes

    @classmethod
    def of(cls, *sources: str) -> "Script":
        """Lua files as `package:name`, one after the other. Each may use what those before it
        define; the last one returns."""
        files_of = (source.partition(":") for source in sources)
        text = b"\n".join((files(p) / f"{name}.lua").read_bytes() for p, _, name in files_of)
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()  # Redis' own name for it.
        return cls(text, digest.encode("ascii"))
