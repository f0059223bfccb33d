"""Peak memory of Python code in a fresh process."""

import gc
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
STATUS = Path("/proc/self/status")


def high_water() -> int:
    """The largest resident memory of this process so far, in bytes.

    Linux writes it down per program; `getrusage` would count the parent's memory too, from the moment before exec.
    """
    if STATUS.exists():
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def extra(work) -> int:
    """By how much `work()` raises the peak of the resident memory, in bytes. Linux only."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    work()
    return high_water() - before


def in_fresh_process(code: str) -> list[int]:
    """The whole numbers that `code` prints, run in a new Python process with one thread and the library on its path."""
    paths = [str(ROOT), str(ROOT / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "LOSSLAB_DEVICE": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"the process failed: {done.stderr[-2000:]}")
    return [int(word) for word in done.stdout.split()]
