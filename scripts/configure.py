"""First settings: config/.env from config/.env.example, with a client key made for this machine."""

import os
import secrets
import sys
from pathlib import Path

EXAMPLE = Path("config/.env.example")
TARGET = Path("config/.env")
EMPTY_KEYS = "GATEWAY_API_KEYS=\n"


def main() -> None:
    """Write the file with mode 600 and print the key."""
    if TARGET.exists():
        sys.exit(f"{TARGET} exists already; it is left as it is")
    key = "sk-" + secrets.token_urlsafe(32)
    text = EXAMPLE.read_text()
    if EMPTY_KEYS not in text:
        sys.exit(f"{EXAMPLE} has no line {EMPTY_KEYS.strip()}; restore the file")
    descriptor = os.open(TARGET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as target:
        target.write(text.replace(EMPTY_KEYS, f"GATEWAY_API_KEYS=default={key}\n"))
    print(f"Wrote {TARGET} (mode 600). Your client key, which stands in that file:\n\n    {key}\n")


if __name__ == "__main__":
    main()
