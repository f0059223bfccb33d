"""Execute the notebooks of the table of contents, several at a time, into the cache that Sphinx reads them from.

A notebook is executed again when its code, the library, the pinned versions or the LOSSLAB_ settings have changed.
Sphinx's own cache looks at the notebook alone, and would show yesterday's numbers after a change in lib/. One line is
printed per notebook. A notebook that raises, or that needs more than its budget, is named; the others are still run;
the exit code is 1.
"""

import atexit
import hashlib
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEGABYTES = 60, 1000  # the budget of a lesson, at the scale "small": processor time and peak memory
DIED = "Kernel died before replying"  # jupyter_client, of a kernel that never started
CELL_TIMEOUT = 300  # seconds on the clock, so that an endless loop ends
SETTINGS = ("LOSSLAB_SCALE", "LOSSLAB_DEVICE")
# One thread per kernel: several kernels run at a time, and threads that fight for two cores are many times slower.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger warns about Python's own frozen modules otherwise
}


@dataclass
class Result:
    """An executed notebook: seconds on the clock, seconds of processor time, peak memory of its kernel in megabytes."""

    notebook: nbformat.NotebookNode
    seconds: float = 0.0
    processor: float = 0.0
    megabytes: float = 0.0
    error: str = ""


def cores():
    """The cores that this process may use: in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def files_of(toc):
    """The notebooks that the table of contents at `toc` lists, in its order."""

    def entries(node):
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key in ("root", "file"))
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from entries(child)

    names = (Path(str(entry)) for entry in entries(yaml.safe_load(toc.read_text(encoding="utf-8"))))
    paths = (toc.parent / (name if name.suffix == ".ipynb" else f"{name}.ipynb") for name in names)
    return [path for path in paths if path.exists()]


def key(root=ROOT):
    """A hash of everything outside a notebook that its outputs depend on."""
    parts = [f"{name}={os.environ.get(name, '')}" for name in SETTINGS] + [sys.version]
    for path in [root / "constraints.txt", *sorted((root / "lib").rglob("*.py"))]:
        parts += [path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def peak_megabytes(pid):
    """The most memory that the process ever had. Where there is no /proc: what it has now."""
    status = Path(f"/proc/{pid}/status")
    high = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(high[1]) * 1024 / 1e6 if high else psutil.Process(pid).memory_info().rss / 1e6


def again(start, times=3):
    """`start()`, repeated where its kernel dies before it answers: two that begin at one moment may get one port."""
    for left in reversed(range(times)):
        try:
            return start()
        except RuntimeError as error:
            if not left or DIED not in str(error):
                raise


def execute(path, notebook=None):
    """Execute the notebook at `path` in its own folder. A cell that raised is named in the `error` of the `Result`."""
    notebook = nbformat.from_dict(notebook or nbformat.read(path, as_version=4))
    result = Result(notebook)

    def begin(cell, **_):
        result.error = f"cell {cell.get('id', '?')}"  # the start of the message, should this cell raise

    def measure(**_):
        pid = client.km.provisioner.process.pid
        times = psutil.Process(pid).cpu_times()
        result.processor = times.user + times.system
        result.megabytes = max(result.megabytes, peak_megabytes(pid))

    def run():
        nonlocal client
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            # No timing in the cells' metadata: the cache compares it, and would never find the notebook again.
            record_timing=False,
            coalesce_streams=True,  # printed text in one piece: the page would break lines where two pieces meet
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns that it talks over the loopback interface
            on_cell_execute=begin,
            on_cell_executed=measure,
        )
        try:
            client.execute(cwd=str(Path(path).parent), env={**os.environ, **ENVIRONMENT})
        except RuntimeError as error:
            if DIED in str(error):  # nbclient would clean up after it when this process ends, in vain and aloud
                atexit.unregister(client._cleanup_kernel)
            raise

    client, start = None, time.monotonic()
    try:
        again(run)
        result.error = ""
    except (CellExecutionError, CellTimeoutError) as error:
        result.error = f"{result.error}: {plain(error)}"
    except DeadKernelError:
        result.error = f"{result.error}: the kernel died (out of memory?)"
    result.seconds = time.monotonic() - start
    return result


def plain(error):
    """The error's traceback without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()


def over_budget(data):
    """What the run needed beyond its budget, in words; empty if nothing. At full scale there is no budget."""
    if os.environ.get("LOSSLAB_SCALE", "small") != "small":
        return ""
    over = []
    if data["processor"] > SECONDS:
        over.append(f"{data['processor']:.0f} s of processor time, and may need {SECONDS} s")
    if data["megabytes"] > MEGABYTES:
        over.append(f"{data['megabytes']:.0f} MB of memory, and may need {MEGABYTES} MB")
    return " and ".join(f"needed {text}" for text in over)


def lookup(cache, notebook, wanted):
    """The cache's record of the notebook, or None. A record made with another library is thrown away."""
    try:
        record = cache.match_cache_notebook(notebook)
    except KeyError:
        return None
    if record.data.get("key") == wanted:
        return record
    cache.remove_cache(record.pk)
    return None


def executed(path, cache_folder):
    """The notebook at `path` with its outputs, from the cache; None if the cache does not hold it as it is now."""
    try:
        return get_cache(str(cache_folder)).merge_match_into_notebook(nbformat.read(path, as_version=4))[1]
    except KeyError:
        return None


def record(path, cache_folder):
    """What the run of the notebook at `path` needed: "execution_seconds", "processor", "megabytes"; None as above."""
    try:
        return get_cache(str(cache_folder)).match_cache_notebook(nbformat.read(path, as_version=4)).data
    except KeyError:
        return None


def run(paths, cache_folder, root=ROOT, jobs=None):
    """Bring the cache up to date. Returns (number of notebooks executed, list of failures in words)."""
    cache, wanted, failures, todo = get_cache(str(cache_folder)), key(root), [], {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        notebook = nbformat.read(path, as_version=4)
        record = lookup(cache, notebook, wanted)
        if record is None:
            todo[name] = (path, notebook)
            continue
        print(f"  {name}: cached", flush=True)
        if over := over_budget(record.data):
            failures.append(f"{name}: {over}")
    with ProcessPoolExecutor(max(1, min(jobs or cores(), len(todo)))) as pool:
        started = {pool.submit(execute, path, notebook): name for name, (path, notebook) in todo.items()}
        for future in as_completed(started):
            name, result = started[future], future.result()
            print(f"  {name}: {result.seconds:.1f} s, {result.megabytes:.0f} MB at most", flush=True)
            data = {
                "key": wanted,
                "execution_seconds": result.seconds,  # the name under which Sphinx's execution table looks for it
                "processor": result.processor,
                "megabytes": result.megabytes,
            }
            if result.error:
                failures.append(f"{name}, {result.error}")
                continue
            bundle = CacheBundleIn(result.notebook, str(todo[name][0]), data=data)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            if over := over_budget(data):
                failures.append(f"{name}: {over}")
    return len(todo), failures


def main():
    paths = files_of(ROOT / "_toc.yml")
    print(f"Executing the notebooks: {len(paths)} in the table of contents, {cores()} at a time", flush=True)
    count, failures = run(paths, ROOT / "_build" / ".jupyter_cache")
    for failure in failures:
        print(f"\nFAILED {failure}", file=sys.stderr)
    print(f"Executed {count} of {len(paths)} notebooks, {len(failures)} failed", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
