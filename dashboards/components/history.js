/* Back returns to the view before.

Streamlit replaces the browser's entry when a visitor changes a widget, and pushes one for each
parameter that Python writes. Here the first change after the visitor did something is a new entry;
what follows from it, or is corrected while a link opens or after Back, belongs to that entry.
Streamlit itself shows the view of an entry that Back or Forward leads to. */

export default function () {
  if (window.palscopeHistory) {
    return;
  }
  window.palscopeHistory = true;
  let acted = false;
  for (const kind of ["pointerdown", "keydown", "change"]) {
    window.addEventListener(kind, () => (acted = true), { capture: true, passive: true });
  }
  window.addEventListener("popstate", () => (acted = false), { capture: true });

  const push = history.pushState.bind(history);
  const replace = history.replaceState.bind(history);
  const write = (state, unused, url) => {
    const moves = url != null && new URL(url, location.href).href !== location.href;
    (moves && acted ? push : replace)(state, unused, url);
    if (moves) {
      acted = false;
    }
  };
  history.pushState = write;
  history.replaceState = write;
}
