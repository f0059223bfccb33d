"""Write benchmarks/README.md from the runs that `make benchmarks` stored: `python -m benchmarks.table RUN.json ...`"""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

# What is timed, by whom it must be beaten and by which factor.
WORKS = {
    "surface": ("51 x 51 points of a plane, 64-64-10 net, 1,797 digits", {"loss-landscapes": 2.5}),
    "eigenvalues": ("ten largest eigenvalues of its Hessian (M = 4,810), to 1e-5 of the tenth",
                    {"curvlinops + eigsh": 4, "PyHessian": 8, "hessian-eigenthings": None}),
    "hessian 6": ("full Hessian, M = 460, n = 500",
                  {"torch.func.hessian": 10, "torch.autograd.functional.hessian": 15,
                   "the same with vectorize=True": None}),
    "hessian 27": ("full Hessian, M = 2,035, n = 500",
                   {"torch.func.hessian": 10, "torch.autograd.functional.hessian": 15,
                    "the same with vectorize=True": None}),
    "adam": ("200 nets 10-16-1, n = 80: 200 Adam steps",
             {"a Python loop over nets": 50, "vmap(grad(functional_call))": 2.5}),
    "critical": ("the same 200 nets on to a gradient norm of 1e-8", {"SciPy trust-exact, two": 1}),
}
PEERS = ["torch", "numpy", "scipy", "loss-landscapes", "curvlinops-for-pytorch", "PyHessian", "hessian-eigenthings"]

TEXT = """# Benchmarks

The library beside its peers, on the same numbers, in float64, in one process. Every number below comes from the run
that wrote this file; a ratio compares two times of one run.

    make benchmarks

installs the peers (the extra `bench` of pyproject.toml; curvlinops without its dependencies, which would bring another
build of PyTorch) and writes this file anew. `hessian-eigenthings` is optional: install it by hand, with `--no-deps`,
and it is timed too. `TURNS=3 make benchmarks` is quicker.

The machine of this run: {machine}.
PyTorch does each piece of work with the number of threads above the table, ours and theirs; NumPy's tanh, which the
library uses on the CPU, always has one. Other programs were running, so the work is done in turns, everybody once in
each turn, and the fastest turn of each counts. Errors are measured in the run itself, outside the timing: the surface
against every point evaluated on its own, eigenvalues against the full matrix, Hessians against `torch.func.hessian`,
the nets after Adam against the loop.

Versions:
{versions}.
{tables}
## What is compared

- **Surface.** `planar_interpolation` of loss-landscapes 3.0.6 with the same corners and the same number of points. It
  walks every other row one step beside where it should; its cost is compared, not its picture.
- **Eigenvalues.** The net after 200 Adam steps of 0.01. Each peer has the loosest tolerance of a short list with which
  its ten eigenvalues are within 1e-5 of the tenth; it is found before the timing and printed with the error. Lanczos
  here stops by its own error bound, without knowing the answer.
- **Hessian.** The peers get the loss as a function of the flat vector, without a module in between. Memory is the
  rise of the peak in a process of its own.
- **200 nets.** The loop is an ordinary `nn.Module` with `torch.optim.Adam` per net. vmap has the same Adam, in place,
  on stacked parameters.
- **To a critical point.** Levenberg-Marquardt on all 200 nets together, from where Adam left them; SciPy's
  `trust-exact` on the first two of them, with value, gradient and Hessian from this library. Wanted: less time for
  200 than SciPy takes for two.
"""


def fastest(paths) -> dict:
    """{threads: {work: {who: (seconds, notes)}}}"""
    found = {}
    for path in paths:
        for one in json.loads(Path(path).read_text())["benchmarks"]:
            notes, seconds = one["extra_info"], one["stats"]["min"]
            whose = found.setdefault(notes["threads"], {}).setdefault(notes["work"], {})
            if notes["who"] not in whose or seconds < whose[notes["who"]][0]:
                whose[notes["who"]] = seconds, notes
    return found


def clock(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def rows(found: dict):
    """The lines of one table; the last word says whether a wanted factor was reached."""
    yield "| work | who | time | ratio | wanted | error | memory |"
    yield "|---|---|---|---|---|---|---|"
    for work, (words, peers) in WORKS.items():
        ours = next(who for who in found[work] if who.startswith("losslab"))
        for who in (ours, *(peer for peer in peers if peer in found[work])):
            seconds, notes = found[work][who]
            ratio = seconds / found[work][ours][0]
            wanted = peers.get(who)
            verdict = "" if wanted is None else f"{wanted:g}" + ("" if ratio >= wanted else ", **missed**")
            memory = f"{notes['memory']} MB" if notes.get("memory") is not None else ""
            yield (f"| {words if who == ours else ''} | {who} | {clock(seconds)} | "
                   f"{'' if who == ours else f'{ratio:.1f}'} | {verdict} | {notes['error']} | {memory} |")


def version(name: str) -> str | None:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return None


def machine() -> str:
    return (f"{os.cpu_count()} cores, {platform.system()} on {platform.machine()}, Python {platform.python_version()}")


def main(paths) -> None:
    tables = ""
    for threads, found in sorted(fastest(paths).items(), reverse=True):
        tables += f"\n## {threads} thread{'s' * (threads > 1)}\n\n" + "\n".join(rows(found)) + "\n"
    text = TEXT.format(machine=machine(), versions=", ".join(filter(None, map(version, PEERS))), tables=tables)
    (Path(__file__).parent / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
