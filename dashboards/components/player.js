// A clip to play, look at and select from; `Picture` draws it.
//
// Python gives the selection at first and whenever `revision` goes up; between, what was selected
// here counts, and is sent when a drag ends. The sound is replaced only when its id changes, so new
// curves neither stop it nor move its cursor.

const CLICK = 4; // px that a pointer may move and still click
const STEP = 0.1; // s, of an arrow key
const DECIMALS = 2; // of seconds, shown and sent

class Player {
  constructor(root) {
    this.root = root;
    this.audio = new Audio();
    this.cursor = 0;
    this.selection = null;
    this.hover = null;
    this.drag = null;
    this.until = null; // where playing stops: the end of the selection, or null
    this.build();
  }

  update(data, send) {
    this.send = send;
    this.data = this.picture.data = data;
    if (data.id !== this.id) this.load();
    if (data.revision !== this.revision) {
      this.revision = data.revision;
      this.selection = data.selection;
      this.drag = null;
      if (this.selection && this.audio.paused) this.moveTo(this.selection[0]);
    }
    this.showLegend();
    this.gridBox.hidden = data.tokens.length === 0;
    this.picture.draw();
    this.show();
  }

  load() {
    const { id, wav, picture, name } = this.data;
    this.id = id;
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    const bytes = Uint8Array.from(atob(wav), (character) => character.charCodeAt(0));
    this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
    this.audio.src = this.saveLink.href = this.url;
    this.saveLink.download = name;
    this.picture.image.src = `data:image/png;base64,${picture}`;
    this.cursor = 0;
    this.selection = this.hover = this.until = null;
  }

  destroy() {
    this.audio.pause();
    this.watcher.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.resting);
    if (this.url) URL.revokeObjectURL(this.url);
  }

  build() {
    this.root.innerHTML = `
      <div class="legend" data-testid="player-legend"></div>
      <div class="stage" tabindex="0" role="slider" data-testid="player-stage" aria-valuemin="0"
        aria-label="Place in the sound. Space plays, arrow keys move, with shift they select, escape clears.">
        <canvas data-testid="player-canvas"></canvas>
        <canvas data-testid="player-overlay"></canvas>
        <div class="tip" data-testid="player-tip" hidden></div>
      </div>
      <div class="controls">
        <button type="button" data-testid="player-play"></button>
        <span class="time" data-testid="player-time"></span>
        <label data-testid="player-grid"
          title="Which seconds each token of the encoder stands for: thin lines for the first stream, thick ones for the next."
          ><input type="checkbox" checked><span>token grid</span></label>
      </div>
      <div class="controls">
        <span class="time" data-testid="player-selection" aria-live="polite"></span>
        <button type="button" data-testid="player-play-all">▶ Play all</button>
        <button type="button" data-testid="player-clear">Clear</button>
        <a data-testid="player-save">Save sound</a>
      </div>`;
    const part = (name) => this.root.querySelector(`[data-testid="player-${name}"]`);
    [this.legend, this.stage, this.tip] = ["legend", "stage", "tip"].map(part);
    [this.playButton, this.allButton, this.clearButton] = ["play", "play-all", "clear"].map(part);
    [this.timeText, this.selectionText, this.saveLink] = ["time", "selection", "save"].map(part);
    this.gridBox = part("grid");
    this.picture = new Picture(this.stage, part("canvas"), part("overlay"));

    this.gridBox.querySelector("input").onchange = ({ target }) => {
      this.picture.gridShown = target.checked;
      this.picture.draw();
    };
    this.playButton.onclick = () => this.toggle();
    this.allButton.onclick = () => this.play(0, null);
    this.clearButton.onclick = () => {
      this.select(null);
      this.stage.focus();
    };
    this.stage.onkeydown = (event) => this.key(event);
    this.stage.onpointerdown = (event) => this.pointerDown(event);
    this.stage.onpointermove = (event) => this.pointerMove(event);
    this.stage.onpointerup = (event) => this.pointerUp(event);
    this.stage.onpointercancel = () => this.cancelDrag();
    this.stage.onpointerleave = () => this.pointAt(null);
    this.audio.onplay = this.audio.onpause = () => this.show();
    this.audio.onended = () => this.moveTo(this.data.seconds);
    this.audio.ontimeupdate = () => this.follow(); // a hidden tab gets no animation frames
    this.watcher = new ResizeObserver(() => {
      this.picture.draw();
      this.show();
    });
    this.watcher.observe(this.stage);
  }

  // -- words -----------------------------------------------------------------------------------

  show() {
    if (!this.data) return;
    const { seconds, tokens } = this.data;
    const playing = !this.audio.paused;
    const shown = this.drag?.moved ? this.drag.span : this.selection;
    const what = this.selection ? "Play selection" : "Play";
    this.playButton.textContent = playing ? "❚❚ Pause" : `▶ ${what}`;
    this.allButton.hidden = this.clearButton.hidden = !this.selection;
    this.timeText.textContent = `${digits(this.cursor)} / ${digits(seconds)} s`;
    this.selectionText.textContent = shown
      ? `Selected: ${this.words(shown)}`
      : "Drag across the picture to select a stretch of the sound.";
    const grid = tokens.map(({ stream, start, end }, i) => {
      const every = this.picture.gridStep(i);
      const left = every > 1 ? `, a line every ${every}` : "";
      return `${stream} ${trimmed(end[0] - start[0])} s${left}`;
    });
    this.gridBox.querySelector("span").textContent = `token grid (${grid.join("; ")})`;
    this.stage.setAttribute("aria-valuemax", digits(seconds));
    this.stage.setAttribute("aria-valuenow", digits(this.cursor));
    const values = [`${digits(this.cursor)} s`, ...this.valuesAt(this.cursor)];
    this.stage.setAttribute("aria-valuetext", values.join(", "));
    this.picture.mark({ selection: shown, hover: this.hover, cursor: this.cursor });
  }

  showLegend() {
    const { curves, curvesTitle } = this.data;
    const title = document.createElement("span");
    title.textContent = curvesTitle;
    const entries = curves.map(({ pathway, colour }) => {
      const entry = document.createElement("span");
      entry.className = "entry";
      entry.textContent = pathway;
      entry.style.setProperty("--colour", colour);
      return entry;
    });
    this.legend.replaceChildren(title, ...entries);
    this.legend.hidden = curves.length === 0;
  }

  // "1.20–1.80 s (tokens: frames 12–17, summary 4–5)"
  words([from, to]) {
    const tokens = this.data.tokens.map(({ stream, start, end }) => {
      const first = end.findIndex((edge) => edge > from + 1e-6);
      const last = start.findLastIndex((edge) => edge < to - 1e-6);
      if (first < 0 || last < first) return `no ${stream}`;
      return first === last ? `${stream} ${first}` : `${stream} ${first}–${last}`;
    });
    const list = tokens.length ? ` (tokens: ${tokens.join(", ")})` : "";
    return `${digits(from)}–${digits(to)} s${list}`;
  }

  valuesAt(seconds) {
    return this.data.curves.flatMap(({ pathway, start, end, mass }) => {
      const i = start.findIndex((from, n) => from <= seconds && seconds < end[n]);
      return i < 0 ? [] : [`${pathway} ${shortNumber(mass[i])}`];
    });
  }

  // Between two strips, beside the pointer: what the curves are there.
  pointAt(x) {
    const inside = x !== null && this.picture.holds(x);
    this.hover = inside ? this.picture.seconds(x) : null;
    this.tip.hidden = !inside;
    if (inside) {
      this.tip.textContent = [`${digits(this.hover)} s`, ...this.valuesAt(this.hover)].join(" · ");
      const right = this.stage.clientWidth - this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(0, Math.min(x + 10, right))}px`;
      this.tip.style.top = `${this.picture.strips.waveform.title}px`;
    }
    this.show();
  }

  // -- playing ---------------------------------------------------------------------------------

  toggle() {
    if (!this.audio.paused) {
      this.audio.pause();
      return;
    }
    const [from, to] = this.selection ?? [0, this.data.seconds];
    const within = this.cursor >= from && this.cursor < to - 0.01;
    this.play(within ? this.cursor : from, this.selection ? to : null);
  }

  play(from, until) {
    this.moveTo(from);
    this.until = until;
    this.audio.play().catch(() => this.show());
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.animate());
  }

  animate() {
    this.follow();
    if (!this.audio.paused) this.frame = requestAnimationFrame(() => this.animate());
  }

  follow() {
    if (this.audio.paused) return;
    this.cursor = Math.min(this.audio.currentTime, this.data.seconds);
    if (this.until !== null && this.cursor >= this.until) {
      this.audio.pause();
      this.cursor = this.until;
    }
    this.show();
  }

  moveTo(seconds) {
    this.cursor = this.audio.currentTime = this.inside(seconds);
    this.show();
  }

  // A place in the clip, as exact as it is shown.
  inside(seconds) {
    return Math.min(Math.max(Number(digits(seconds)), 0), this.data.seconds);
  }

  // -- selecting -------------------------------------------------------------------------------

  select(span) {
    this.change(span);
    this.report();
  }

  change(span) {
    this.selection = span;
    this.until = null; // what plays, plays on
    this.show();
  }

  report() {
    clearTimeout(this.resting);
    this.send("selection", { revision: this.revision, value: this.selection });
  }

  across(event) {
    return event.clientX - this.stage.getBoundingClientRect().left;
  }

  pointerDown(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    const x = this.across(event);
    this.drag = { x, from: this.inside(this.picture.seconds(x)), moved: false, span: null };
  }

  pointerMove(event) {
    const x = this.across(event);
    if (this.drag) {
      this.drag.moved ||= Math.abs(x - this.drag.x) > CLICK;
      this.drag.span = inOrder(this.drag.from, this.inside(this.picture.seconds(x)));
    }
    this.pointAt(event.pointerType === "touch" ? null : x);
  }

  pointerUp(event) {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    if (drag.moved && drag.span[1] > drag.span[0]) {
      this.fixed = drag.from;
      this.select(drag.span);
      if (this.audio.paused) this.moveTo(drag.span[0]);
    } else {
      this.until = null;
      this.moveTo(this.picture.seconds(this.across(event)));
    }
  }

  cancelDrag() {
    this.drag = null;
    this.show();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.max(Math.min(STEP, this.data.seconds / 10), 10 ** -DECIMALS);
    const by = { ArrowLeft: -step, ArrowRight: step }[event.key];
    if (event.key === " ") {
      this.toggle();
    } else if (event.key === "Escape") {
      if (this.selection) this.select(null);
    } else if (event.key === "Home" || event.key === "End") {
      this.moveTo(event.key === "Home" ? 0 : this.data.seconds);
    } else if (by && event.shiftKey) {
      this.extend(by);
    } else if (by) {
      this.moveTo(this.cursor + by);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // Moves the end that was dragged or moved last; sent once the keys rest.
  extend(by) {
    const [from, to] = this.selection ?? [this.cursor, this.cursor];
    if (this.fixed !== to) this.fixed = from;
    this.moveTo((this.fixed === from ? to : from) + by);
    const span = inOrder(this.fixed, this.cursor);
    this.change(span[1] > span[0] ? span : null);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.report(), 300);
  }
}

function inOrder(a, b) {
  return a < b ? [a, b] : [b, a];
}

function digits(seconds) {
  return seconds.toFixed(DECIMALS);
}

const players = new WeakMap();

// Streamlit calls this whenever data or theme change, with the same parentElement.
export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".player");
  if (!players.has(root)) players.set(root, new Player(root));
  players.get(root).update(data, setStateValue);
  return () => {
    players.get(root)?.destroy();
    players.delete(root);
  };
}
