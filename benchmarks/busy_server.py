"""batchmill with one more Python thread, busy BUSY_MS of every PERIOD_MS as a control plane at work would be. Arguments: batchmill's."""

from __future__ import annotations

import os
import threading
import time

from batchmill import cli

BUSY_MS, PERIOD_MS = 20, 100


def burn(main_thread: int) -> None:
    """Runs bytecode, as nice as the main thread is by then: it takes its niceness only once the data plane has started."""
    while True:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, main_thread))
        end = time.monotonic() + BUSY_MS / 1000
        while time.monotonic() < end:
            pass
        time.sleep((PERIOD_MS - BUSY_MS) / 1000)


if __name__ == "__main__":
    threading.Thread(target=burn, args=[threading.get_native_id()], daemon=True).start()
    cli.main()
