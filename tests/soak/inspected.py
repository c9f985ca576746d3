"""Runs the gateway so that it tells, on SIGRTMIN, what it holds: its tasks and its objects.

python -m tests.soak.inspected FILE -m gateway serve
"""

import asyncio
import gc
import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

ASK: Final = signal.SIGRTMIN
_MOST_KINDS: Final = 60


def main() -> None:
    """Run the module that is named after the file."""
    out = Path(sys.argv[1])
    sys.argv = sys.argv[3:]

    def tell(number: int, frame: FrameType | None) -> None:
        part = out.with_suffix(".part")
        part.write_text(json.dumps(_held()))
        part.replace(out)

    signal.signal(ASK, tell)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _held() -> dict[str, object]:
    gc.collect()
    objects = gc.get_objects()
    tasks = Counter(str(task.get_coro()).split(" at ")[0] for task in asyncio.all_tasks())
    kinds = Counter(type(each).__qualname__ for each in objects)
    return {
        "tasks": dict(tasks),
        "objects": len(objects),
        "blocks": sys.getallocatedblocks(),
        "kinds": dict(kinds.most_common(_MOST_KINDS)),
    }


if __name__ == "__main__":
    main()
