"""The book's Sphinx extension as a module: it lies outside the packages, because only Sphinx needs it."""

import importlib.util

from tests.site.reader import ROOT

_spec = importlib.util.spec_from_file_location("losslab_book", ROOT / "book" / "_ext" / "losslab_book.py")
extension = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(extension)
