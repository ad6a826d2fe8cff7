// A clip to play, look at and select from; `Picture` draws it, and `Hand` is what hands do on it.
//
// Python gives the selection at first and whenever `revision` goes up; between, what was selected
// here counts, and is sent when a drag ends. The sound is replaced only when its id changes. Curves
// come on a way of their own (curves.js), and neither stop it nor move its cursor.

const CALM = 0.5; // s, by which the cursor steps for who asked for less motion
const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");

class Player {
  constructor(root) {
    this.root = root;
    this.audio = new Audio();
    this.cursor = 0;
    this.selection = null;
    this.hover = null;
    this.until = null; // where playing stops: the end of the selection, or null
    this.loop = false;
    this.build();
  }

  update(data, send) {
    this.send = send;
    this.data = this.picture.data = { ...data, ...this.curvesOf(data) };
    if (data.id !== this.id) this.load();
    if (data.revision !== this.revision) {
      this.revision = data.revision;
      this.selection = data.selection;
      this.hand.drag = null;
      if (this.selection && data.plays) this.play(...this.selection);
      else if (this.selection && this.audio.paused) this.moveTo(this.selection[0]);
    }
    this.showLegend();
    this.showLabels();
    this.gridBox.hidden = data.tokens.length === 0;
    this.look(this.picture.shown);
  }

  // Those of another clip, which may stand there for a moment, are none of this one.
  curvesOf({ key, id }) {
    const told = window.palscopeCurves?.get(key);
    const { curves, curvesTitle } = told?.id === id ? told : { curves: [], curvesTitle: "" };
    return { curves, curvesTitle };
  }

  load() {
    const { id, wav, picture, name, seconds } = this.data;
    this.id = id;
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    const bytes = Uint8Array.from(atob(wav), (character) => character.charCodeAt(0));
    this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
    this.audio.src = this.saveLink.href = this.url;
    this.saveLink.download = name;
    this.picture.samples = samplesOf(bytes);
    this.picture.shown = [0, seconds];
    this.picture.image.src = `data:image/png;base64,${picture}`;
    this.cursor = 0;
    this.selection = this.hover = this.until = null;
  }

  destroy() {
    this.audio.pause();
    this.watcher.disconnect();
    window.removeEventListener("palscope-curves", this.redraw);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.resting);
    if (this.url) URL.revokeObjectURL(this.url);
  }

  build() {
    this.root.innerHTML = `
      <div class="legend" data-testid="player-legend"></div>
      <div class="stage" tabindex="0" role="slider" data-testid="player-stage" aria-valuemin="0"
        aria-label="Place in the sound. Space plays, arrow keys move, with shift they select, escape clears, plus and minus zoom, 0 shows all.">
        <canvas data-testid="player-canvas"></canvas>
        <canvas data-testid="player-overlay"></canvas>
        <div class="tip" data-testid="player-tip" hidden></div>
      </div>
      <p class="unseen" data-testid="player-words"></p>
      <ul class="labels" data-testid="player-labels" aria-label="What sounds when"></ul>
      <div class="controls">
        <button type="button" data-testid="player-play"></button>
        <span class="time" data-testid="player-time"></span>
        <label data-testid="player-loop"><input type="checkbox">loop</label>
        <label data-testid="player-grid"
          title="Which seconds each token of the encoder stands for: thin lines for the first stream, thick ones for the next."
          ><input type="checkbox" checked><span>token grid</span></label>
      </div>
      <div class="controls">
        <span class="time" data-testid="player-selection" aria-live="polite"></span>
        <button type="button" data-testid="player-play-all">▶ Play all</button>
        <button type="button" data-testid="player-clear">Clear</button>
        <button type="button" data-testid="player-zoom">Zoom to selection</button>
        <button type="button" data-testid="player-whole">Whole clip</button>
        <a data-testid="player-save">Save sound</a>
      </div>`;
    const part = (name) => this.root.querySelector(`[data-testid="player-${name}"]`);
    [this.legend, this.stage, this.tip] = ["legend", "stage", "tip"].map(part);
    [this.playButton, this.allButton, this.clearButton] = ["play", "play-all", "clear"].map(part);
    [this.zoomButton, this.wholeButton] = ["zoom", "whole"].map(part);
    [this.timeText, this.selectionText, this.saveLink] = ["time", "selection", "save"].map(part);
    [this.gridBox, this.labelList, this.pictureText] = ["grid", "labels", "words"].map(part);
    this.picture = new Picture(this.stage, part("canvas"), part("overlay"));
    this.hand = new Hand(this);

    this.gridBox.querySelector("input").onchange = ({ target }) => {
      this.picture.gridShown = target.checked;
      this.picture.draw();
    };
    this.playButton.onclick = () => this.toggle();
    this.allButton.onclick = () => this.play(0, null);
    part("loop").querySelector("input").onchange = ({ target }) => {
      this.loop = target.checked;
    };
    // These hide themselves: the focus goes on to the picture.
    this.clearButton.onclick = () => {
      this.select(null);
      this.stage.focus();
    };
    this.zoomButton.onclick = () => {
      this.look(around(this.selection, this.data.seconds));
      this.stage.focus();
    };
    this.wholeButton.onclick = () => {
      this.look([0, this.data.seconds]);
      this.stage.focus();
    };
    this.audio.onplay = this.audio.onpause = () => this.show();
    this.audio.onended = () => {
      if (this.loop) this.play(this.until === null ? 0 : this.selection[0], this.until);
      else this.moveTo(this.data.seconds);
    };
    this.audio.ontimeupdate = () => this.follow(); // a hidden tab gets no animation frames
    this.watcher = new ResizeObserver(() => {
      this.picture.draw();
      this.show();
    });
    this.watcher.observe(this.stage);
    this.redraw = () => this.data && this.update(this.data, this.send);
    window.addEventListener("palscope-curves", this.redraw);
  }

  // -- words -----------------------------------------------------------------------------------

  show() {
    if (!this.data) return;
    const { seconds, tokens } = this.data;
    const playing = !this.audio.paused;
    const { drag } = this.hand;
    const shown = drag?.moved ? drag.span : this.selection;
    const what = this.selection ? "Play selection" : "Play";
    this.playButton.textContent = playing ? "❚❚ Pause" : `▶ ${what}`;
    for (const each of [this.allButton, this.clearButton, this.zoomButton]) {
      each.hidden = !this.selection;
    }
    this.wholeButton.hidden = this.picture.whole;
    const part = this.picture.whole ? "" : `, shown ${stretch(this.picture.shown)}`;
    this.timeText.textContent = `${digits(this.cursor)} / ${digits(seconds)} s${part}`;
    this.selectionText.textContent = shown
      ? `Selected: ${selectionWords(this.data, shown)}`
      : "Drag across the picture to select a stretch of the sound.";
    const grid = tokens.map(({ stream, start, end }, i) => {
      const every = this.picture.gridStep(i);
      const left = every > 1 ? `, a line every ${every}` : "";
      return `${stream} ${trimmed(end[0] - start[0])} s${left}`;
    });
    this.gridBox.querySelector("span").textContent = `token grid (${grid.join("; ")})`;
    this.stage.setAttribute("aria-valuemax", digits(seconds));
    this.stage.setAttribute("aria-valuenow", digits(this.cursor));
    const values = [`${digits(this.cursor)} s`, ...valuesAt(this.data, this.cursor)];
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

  // Each selects its stretch; of a point, moves there.
  showLabels() {
    const { labels, frames } = this.data;
    const now = JSON.stringify([labels, frames]);
    if (now === this.labelled) return; // the focus may be on one
    this.labelled = now;
    const items = labels.map((label) => {
      const [item, button] = ["li", "button"].map((tag) => document.createElement(tag));
      button.type = "button";
      button.textContent = labelWords(this.data, label);
      button.onclick = () => this.take([label.start, label.end]);
      item.append(button);
      return item;
    });
    this.labelList.replaceChildren(...items);
    this.labelList.hidden = items.length === 0;
  }

  // Between two strips, beside the pointer: what the curves are there.
  pointAt(x) {
    const inside = x !== null && this.picture.holds(x);
    this.hover = inside ? this.picture.seconds(x) : null;
    this.tip.hidden = !inside;
    if (inside) {
      this.tip.textContent = [`${digits(this.hover)} s`, ...valuesAt(this.data, this.hover)].join(" · ");
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
    const at = Math.min(this.audio.currentTime, this.data.seconds);
    if (this.until !== null && at >= this.until) {
      if (this.loop) {
        this.moveTo(this.selection[0]);
        return;
      }
      this.audio.pause();
      this.cursor = this.until;
    } else if (STILL.matches && Math.abs(at - this.cursor) < CALM) {
      return;
    } else {
      this.cursor = at;
    }
    this.reveal();
  }

  moveTo(seconds) {
    this.cursor = this.audio.currentTime = this.inside(seconds);
    this.reveal();
  }

  // A place in the clip, as exact as it is shown.
  inside(seconds) {
    return Math.min(Math.max(Number(digits(seconds)), 0), this.data.seconds);
  }

  // -- looking ---------------------------------------------------------------------------------

  look(shown) {
    this.picture.shown = shown;
    this.picture.draw();
    this.pictureText.textContent = pictureWords(this.data, shown);
    this.show();
  }

  zoom(factor, about) {
    this.look(zoomed(this.picture.shown, factor, about, this.data.seconds));
  }

  // By so many px.
  pan(across) {
    const { shown, span, inner } = this.picture;
    this.look(within(shown[0] + (across / inner) * span, span, this.data.seconds));
  }

  // So that the cursor is seen.
  reveal() {
    const shown = following(this.picture.shown, this.cursor, this.data.seconds);
    if (shown[0] !== this.picture.shown[0]) this.look(shown);
    else this.show();
  }

  // -- selecting -------------------------------------------------------------------------------

  select(span) {
    this.change(span);
    this.report();
  }

  // A stretch or a place that is given in words.
  take([from, to]) {
    const [start, end] = [this.inside(from), this.inside(to)];
    if (end > start) this.select([start, end]);
    if (this.audio.paused) this.moveTo(start);
  }

  change(span) {
    this.selection = span;
    this.until = this.loop && span ? span[1] : null; // what plays, plays on
    this.show();
  }

  report() {
    clearTimeout(this.resting);
    this.send("selection", { revision: this.revision, value: this.selection });
  }

  reportSoon() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.report(), 300);
  }
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
