// Three small things that neither Sphinx nor CSS does.

// 1. Opened from disk a page may not fetch another one, so the search lists titles without excerpts.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// 2. What is folded on the screen is unfolded on paper, and folded again afterwards.
matchMedia("print").addEventListener("change", (print) => {
  for (const fold of document.querySelectorAll("main details")) {
    if (print.matches) {
      fold.dataset.wasOpen = fold.open;
      fold.open = true;
    } else if (fold.dataset.wasOpen === "false") {
      fold.open = false;
    }
  }
});

// 3. A formula, table or figure that is wider than the screen scrolls, by keyboard too: it must be able to take the focus.
function makeScrollableReachable() {
  for (const box of document.querySelectorAll("mjx-container[display], .pst-scrollable-table-container, .cell_output .output")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
    } else if (box.tabIndex === 0) {
      box.removeAttribute("tabindex");
    }
  }
}
addEventListener("load", () => {
  const drawn = window.MathJax?.startup?.promise ?? Promise.resolve();
  drawn.then(makeScrollableReachable);
});
addEventListener("resize", makeScrollableReachable);
