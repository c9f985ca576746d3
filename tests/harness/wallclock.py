"""A wall clock that a test sets, for a whole process: skewed_clock.c, compiled and preloaded."""

import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness.programs import installed

SOURCE = Path(__file__).with_name("skewed_clock.c")


class WallClock:
    """`environ` goes to the process; `set` steps its clock, also while it runs."""

    def __init__(self, folder: Path, at: datetime) -> None:
        library, self._skew = folder / "skewed_clock.so", folder / "skew"
        compiler = installed("cc", package="build-essential")
        command = [compiler, "-shared", "-fPIC", "-O", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self._skew.write_bytes(bytes(8))
        self.environ: dict[str, Any] = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._skew)}
        self.set(at)

    def set(self, at: datetime) -> None:
        """From now on it is that time."""
        seconds = round((at - datetime.now(UTC)).total_seconds())
        with self._skew.open("r+b") as file:
            file.write(struct.pack("<q", seconds))
