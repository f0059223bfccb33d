"""The claims page says what it should: every theorem has its row, every row its theorem, its source and its test."""

from tools import claims

ROW = {
    "label": "thm-one",
    "lesson": "lessons/1_a/1_1_b",
    "kind": "theorem",
    "statement": "One is one.",
    "source": ["key"],
    "checked": "computed",
    "test": "tests/claims/test_1_1.py::test_one",
}
STATED = {"thm-one": ("lessons/1_a/1_1_b", "theorem", "statement")}
TESTS, SOURCES = {ROW["test"]}, {"key"}


def test_every_claim_is_stated_sourced_and_tested():
    found = claims.problems(claims.rows(), claims.stated(), claims.collected(), claims.sources())
    assert not found, "\n".join(found)


def check(row=None, stated=STATED, tests=TESTS, sources=SOURCES, again=False):
    row = {**ROW, **(row or {})}
    return claims.problems([row, row] if again else [row], stated, tests, sources)


def test_a_complete_row_passes():
    assert check() == []
    assert check({"source": "proved here"}) == []


def test_what_is_amiss_is_named():
    assert "no test tests/claims/test_1_1.py::test_one" in check(tests=set())[0]
    assert "no lesson states it" in check(stated={})[0]
    assert "['key'] are not in references.bib" in check(sources=set())[0]
    assert "lacks ['statement']" in check({"statement": ""})[0]
    assert "does not know ['extra']" in check({"extra": 1})[0]
    assert "checked is 'hoped'" in check({"checked": "hoped"})[0]
    assert "is a theorem of lessons/1_a/1_1_b (cell statement), not a lemma" in check({"kind": "lemma"})[0]
    assert "stands there twice" in check(again=True)[0]
    other = {**STATED, "thm-two": ("lessons/1_a/1_1_b", "lemma", "second")}
    assert "1_1_b.ipynb, cell second: the lemma 'thm-two' has no row in book/claims.yml" in check(stated=other)[0]
