// Tells a player which curves to draw. It draws nothing itself: where a page redraws this alone, the
// player goes on as it was, with new curves.
//
// Each component is a module of its own; they meet at the window, whichever of them comes first.

export default function ({ data }) {
  window.palscopeCurves ??= new Map();
  window.palscopeCurves.set(data.key, data);
  window.dispatchEvent(new Event("palscope-curves"));
}
