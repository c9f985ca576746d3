"""The lifeline: what a worker does when its supervisor is gone."""

import os
import signal
import threading


def end_with_the_supervisor(lifeline: int) -> None:
    """Drain when the supervisor is gone, however it went: nobody would start or end us."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
