"""Rules for the whole test run: a claim can't be skipped, and a notebook's cell is named by its id."""

from pathlib import Path

import pytest

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


def pytest_collection_modifyitems(items):
    # nbval counts the code cells; the id says which one it is, in the notebook and in every other check.
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and "id" in cell:
            item.name = cell["id"]
            item._nodeid = f"{item.parent.nodeid}::{cell['id']}"
