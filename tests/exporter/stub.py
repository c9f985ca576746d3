"""The driver that tests own: nvml_stub.c compiled, and the file that rules its GPUs."""

import asyncio
import subprocess
from pathlib import Path

from tests.harness.programs import installed

SOURCE = Path(__file__).with_name("nvml_stub.c")


def build_stub(folder: Path, *flags: str) -> Path:
    """Compile `libnvidia-ml.so.1` into the folder."""
    compiler = installed("cc", package="build-essential")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-w", *flags, "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return folder


class StubDriver:
    """`set` changes what the GPUs do from their next call on, in a running exporter too."""

    def __init__(self, *, library: Path, state: Path) -> None:
        self._library = library
        self._state = state
        self._options: dict[str, int] = {}
        self.set()

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self._library), "NVML_STUB": str(self._state)}

    async def hangs(self) -> None:
        """Until a call has begun to hang."""
        marker = self._state.with_name(self._state.name + ".hangs")
        async with asyncio.timeout(10):
            while not marker.exists():
                await asyncio.sleep(0.02)

    def set(self, **options: int | None) -> None:
        """Numbers by name, see nvml_stub.c; None takes one back."""
        self._options |= {name: value for name, value in options.items() if value is not None}
        for name in (name for name, value in options.items() if value is None):
            self._options.pop(name, None)
        lines = "".join(f"{name}={value}\n" for name, value in self._options.items())
        # Replaced, never rewritten: the driver may be reading it.
        fresh = self._state.with_suffix(".new")
        fresh.write_text(lines)
        fresh.replace(self._state)

    def report_xid(self, xid: int, *, gpu: int) -> None:
        serial = self._options.get("xid_serial", 0) + 1
        self.set(xid=xid, xid_gpu=gpu, xid_serial=serial)
