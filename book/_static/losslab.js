// Three small things that neither Sphinx nor CSS does.

// 1. Opened from disk a page may not fetch another one, so the search lists titles without excerpts.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// 2. Paper is white, and what is folded on the screen is unfolded on it. Afterwards everything is as it was.
matchMedia("print").addEventListener("change", (print) => {
  const page = document.documentElement.dataset;
  if (print.matches) {
    page.themeOnScreen = page.theme;
    page.theme = "light";
  } else {
    page.theme = page.themeOnScreen;
  }
  for (const fold of document.querySelectorAll("main details")) {
    if (print.matches) {
      fold.dataset.wasOpen = fold.open;
      fold.open = true;
    } else if (fold.dataset.wasOpen === "false") {
      fold.open = false;
    }
  }
});

// 3. A formula, table or output that is wider than its box scrolls, by keyboard too: it must be able to take the focus.
const boxes = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    if (target.scrollWidth > target.clientWidth) {
      target.tabIndex = 0;
    } else {
      target.removeAttribute("tabindex");
    }
  }
});
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const wide = "mjx-container[display], .pst-scrollable-table-container, .cell_output .output";
  document.querySelectorAll(wide).forEach((box) => boxes.observe(box));
});
