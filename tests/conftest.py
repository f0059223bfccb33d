"""Rules for the whole test run: a claim can't be skipped, and a notebook's cell is named by its id."""

from pathlib import Path

import nbval.kernel
import nbval.plugin
import pytest

from tools import execute

CLAIMS = Path(__file__).parent / "claims"
REFUSAL = "a test of a claim may not be skipped or expected to fail: the claims page says that it was checked"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if CLAIMS in item.path.parents and (report.skipped or hasattr(report, "wasxfail")):
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: {REFUSAL}"
        vars(report).pop("wasxfail", None)  # else pytest counts it as an expected failure all the same
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if CLAIMS in collector.path.parents and report.skipped:  # a whole file, as pytest.importorskip does it
        report.outcome, report.longrepr = "failed", f"{collector.nodeid}: {REFUSAL}"
    return report


# A kernel that found its port taken is started again, as in `make book`.
start = nbval.kernel.start_new_kernel
nbval.kernel.start_new_kernel = lambda **options: execute.again(lambda: start(**options))

# nbval counts the code cells. Their ids say which is meant, as in every other check and in the notebook itself.
Cell = nbval.plugin.IPyNbCell
make = Cell.from_parent.__func__
Cell.from_parent = classmethod(
    lambda cls, parent, *, name, cell, **options: make(cls, parent, name=cell.get("id", name), cell=cell, **options)
)
Cell.reportinfo = lambda self: (self.path, 0, self.nodeid)
