// The route as a grid of cells that a brush paints. Python gives the rows at first and whenever
// `revision` goes up; between, what was painted here counts, and is sent when a stroke ends.

const KEYS = { ".": ".", Delete: ".", Backspace: ".", p: "P", x: "X", k: "k", a: "a", f: "F" };

class RouteTable {
  constructor(root) {
    this.root = root;
    this.revision = null;
    this.brush = null;
    this.stroke = null; // the cell painted last while the pointer is down
  }

  update(data, send) {
    this.send = send;
    if (data === this.data) return;
    const shape = JSON.stringify([data.streams, data.allowed, data.symbols, data.original]);
    this.data = data;
    this.symbols = Object.fromEntries(data.symbols.map((entry) => [entry.symbol, entry]));
    if (shape !== this.shape) {
      this.shape = shape;
      this.rows = split(data.rows);
      this.build();
    }
    if (data.revision !== this.revision) {
      this.revision = data.revision;
      this.rows = split(data.rows);
      this.stroke = null;
    }
    this.paintAll();
  }

  // -- the elements ----------------------------------------------------------------------------

  build() {
    const { streams, allowed } = this.data;
    const layers = allowed[streams[0]].length;
    const usable = new Set(Object.values(allowed).flat().join(""));
    if (!usable.has(this.brush)) {
      this.brush = this.data.symbols.map((s) => s.symbol).find((s) => usable.has(s)) ?? null;
    }
    this.palette = element("div", { class: "brushes", role: "radiogroup", "aria-label": "brush" });
    for (const { symbol, name, meaning, colour } of this.data.symbols) {
      const button = element("button", {
        class: "brush",
        type: "button",
        role: "radio",
        "data-testid": `brush-${symbol}`,
        "data-symbol": symbol,
        title: usable.has(symbol) ? meaning : `${meaning}: this checkpoint has no weights for it`,
      });
      const swatch = element("span", { class: "swatch" }, symbol === "." ? "·" : symbol);
      swatch.style.background = colour;
      if (symbol !== ".") swatch.style.color = "#000";
      button.append(swatch, name);
      button.disabled = !usable.has(symbol);
      button.onclick = () => this.choose(symbol);
      this.palette.append(button);
    }
    this.palette.onkeydown = (event) => this.paletteKey(event);

    this.grid = element("div", { class: "grid", role: "grid", "aria-label": "route" });
    const narrow = layers > 36 ? 13 : 18; // px
    this.grid.style.gridTemplateColumns = `auto repeat(${layers}, minmax(${narrow}px, 28px))`;
    this.grid.append(this.header(layers), ...streams.map((name) => this.streamRow(name, layers)));
    this.grid.onpointerdown = (event) => this.pointerDown(event);
    this.grid.onpointermove = (event) => this.pointerMove(event);
    this.grid.onpointerup = this.grid.onpointercancel = (event) => this.pointerUp(event);
    this.grid.onclick = (event) => this.click(event);
    this.grid.onkeydown = (event) => this.key(event);
    this.focusAt(0, 0);

    const scroll = element("div", { class: "scroll" });
    scroll.append(this.grid);
    this.note = element("div", { class: "note", "aria-live": "polite", "data-testid": "route-note" });
    this.root.replaceChildren(this.palette, scroll, this.note);
    this.watcher?.disconnect();
    // A finger scrolls a table that is wider than the screen, and paints one that is not.
    this.watcher = new ResizeObserver(() => {
      this.scrolls = scroll.scrollWidth > scroll.clientWidth + 1;
      this.grid.style.touchAction = this.scrolls ? "auto" : "pan-y";
    });
    this.watcher.observe(scroll);
  }

  header(layers) {
    const row = element("div", { class: "row", role: "row" });
    row.append(element("div", { class: "name layer", role: "columnheader" }, "layer"));
    for (let layer = 0; layer < layers; layer += 1) {
      const shown = layers <= 36 || layer % 2 === 0;
      const label = { class: "layer", role: "columnheader", "aria-label": `layer ${layer}` };
      row.append(element("div", label, shown ? String(layer) : ""));
    }
    return row;
  }

  streamRow(stream, layers) {
    const row = element("div", { class: "row", role: "row" });
    row.append(element("div", { class: "name", role: "rowheader" }, stream));
    for (let layer = 0; layer < layers; layer += 1) {
      const holder = element("div", { role: "gridcell", style: "display: contents" });
      const cell = element("button", {
        class: "cell",
        type: "button",
        tabindex: "-1",
        "data-testid": `route-cell-${stream}-${layer}`,
        "data-stream": stream,
        "data-layer": layer,
      });
      holder.append(cell);
      row.append(holder);
    }
    return row;
  }

  cell(stream, layer) {
    return this.grid.querySelector(`[data-stream="${stream}"][data-layer="${layer}"]`);
  }

  paintAll() {
    for (const button of this.palette.children) {
      const chosen = button.dataset.symbol === this.brush;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
    }
    for (const stream of this.data.streams) {
      for (let layer = 0; layer < this.rows[stream].length; layer += 1) this.draw(stream, layer);
    }
    const changed = this.grid.querySelectorAll(".changed").length;
    const barred = this.grid.querySelectorAll(".barred").length;
    const differ = `◥ ${changed} ${changed === 1 ? "cell differs" : "cells differ"} from the original route.`;
    const hatched = `Hatched: no weights for ${this.symbols[this.brush]?.name}.`;
    this.note.textContent = [changed ? differ : "", barred ? hatched : ""].join(" ").trim();
  }

  draw(stream, layer) {
    const cell = this.cell(stream, layer);
    const symbol = this.rows[stream][layer];
    const before = this.data.original[stream][layer];
    const { name, colour } = this.symbols[symbol];
    const barred = !this.data.allowed[stream][layer].includes(this.brush);
    cell.textContent = symbol === "." ? "·" : symbol;
    cell.style.backgroundColor = colour; // not `background`: hatching is a background image
    cell.style.color = symbol === "." ? "inherit" : "#000";
    cell.classList.toggle("barred", barred);
    cell.classList.toggle("changed", symbol !== before);
    const was = symbol === before ? "" : `, originally ${this.symbols[before].name}`;
    cell.setAttribute("aria-label", `${stream}, layer ${layer}: ${name}${was}`);
    const bar = barred ? `; no weights for ${this.symbols[this.brush]?.name} here` : "";
    cell.title = `${stream}, layer ${layer}: ${name}${was}${bar}`;
  }

  // -- changing cells --------------------------------------------------------------------------

  choose(symbol) {
    this.brush = symbol;
    this.paintAll();
  }

  // Whether the cell changed: it may not, or have the symbol already.
  set(stream, layer, symbol) {
    if (!this.data.allowed[stream][layer].includes(symbol)) return false;
    if (this.rows[stream][layer] === symbol) return false;
    this.rows[stream][layer] = symbol;
    this.dirty = true;
    return true;
  }

  finish() {
    this.paintAll();
    if (!this.dirty) return;
    this.dirty = false;
    const rows = Object.entries(this.rows).map(([stream, cells]) => [stream, cells.join("")]);
    this.send("rows", { revision: this.revision, value: Object.fromEntries(rows) });
  }

  cellAt(event) {
    const under = this.root.getRootNode().elementFromPoint(event.clientX, event.clientY);
    const cell = under?.closest?.(".cell");
    if (!cell || !this.grid.contains(cell)) return null;
    return { stream: cell.dataset.stream, layer: Number(cell.dataset.layer) };
  }

  pointerDown(event) {
    const at = this.cellAt(event);
    if (!at || event.button !== 0 || (event.pointerType === "touch" && this.scrolls)) return;
    this.grid.setPointerCapture(event.pointerId);
    this.stroke = at;
    this.focusAt(this.data.streams.indexOf(at.stream), at.layer, true);
    this.paint(at, at);
  }

  pointerMove(event) {
    if (!this.stroke) return;
    const at = this.cellAt(event);
    if (!at || (at.stream === this.stroke.stream && at.layer === this.stroke.layer)) return;
    // A fast pointer leaps over cells: paint those between as well.
    this.paint(at.stream === this.stroke.stream ? this.stroke : at, at);
    this.stroke = at;
  }

  pointerUp() {
    if (!this.stroke) return;
    this.stroke = null;
    this.finish();
  }

  paint(from, to) {
    const [first, last] = [Math.min(from.layer, to.layer), Math.max(from.layer, to.layer)];
    for (let layer = first; layer <= last; layer += 1) {
      if (this.set(to.stream, layer, this.brush)) this.draw(to.stream, layer);
    }
  }

  // From Enter, Space, a screen reader, or a finger that would otherwise scroll; after a stroke
  // the cell has the brush's symbol already.
  click(event) {
    const cell = event.target.closest(".cell") ?? null;
    if (!cell) return;
    this.set(cell.dataset.stream, Number(cell.dataset.layer), this.brush);
    this.finish();
  }

  // -- keyboard --------------------------------------------------------------------------------

  key(event) {
    const cell = event.target.closest(".cell");
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const { streams } = this.data;
    const [row, layer] = [streams.indexOf(cell.dataset.stream), Number(cell.dataset.layer)];
    const last = this.rows[streams[0]].length - 1;
    const to = {
      ArrowLeft: [row, layer - 1],
      ArrowRight: [row, layer + 1],
      ArrowUp: [row - 1, layer],
      ArrowDown: [row + 1, layer],
      Home: [row, 0],
      End: [row, last],
    }[event.key];
    const symbol = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (to) {
      this.focusAt(clamp(to[0], streams.length - 1), clamp(to[1], last), true);
    } else if (symbol) {
      this.set(streams[row], layer, symbol);
      this.finish();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  paletteKey(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    const usable = [...this.palette.children].filter((button) => !button.disabled);
    const at = usable.findIndex((button) => button.dataset.symbol === this.brush);
    const next = usable[(at + step + usable.length) % usable.length];
    this.choose(next.dataset.symbol);
    next.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  // One cell is in the tab order; arrows move within the grid.
  focusAt(row, layer, focus = false) {
    this.grid.querySelector('.cell[tabindex="0"]')?.setAttribute("tabindex", "-1");
    const cell = this.cell(this.data.streams[row], layer);
    cell.setAttribute("tabindex", "0");
    if (focus) cell.focus();
  }
}

function split(rows) {
  return Object.fromEntries(Object.entries(rows).map(([stream, text]) => [stream, [...text]]));
}

function clamp(value, last) {
  return Math.min(Math.max(value, 0), last);
}

function element(tag, attributes = {}, text = null) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

const tables = new WeakMap();

// Streamlit calls this whenever data or theme change, with the same parentElement.
export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".route_table");
  if (!tables.has(root)) tables.set(root, new RouteTable(root));
  tables.get(root).update(data, setStateValue);
  return () => {
    tables.get(root)?.watcher?.disconnect();
    tables.delete(root);
  };
}
