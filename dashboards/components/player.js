// A clip's sound above and on one axis of seconds: attention, waveform, spectrogram.
//
// Python gives the selection at first and whenever `revision` goes up; between, what was selected
// here counts, and is sent when a drag ends. The sound is replaced only when its id changes, so new
// curves neither stop it nor move its cursor.

const MARGIN = { left: 46, right: 12 }; // px, of all strips
const HEADER = 20; // above each strip: its title
const STRIPS = { curves: 84, waveform: 44, spectrogram: 132 };
const AXIS = 36; // below: seconds
const CLICK = 4; // px that a pointer may move and still click
const STEP = 0.1; // s, of an arrow key
const SPACING = 10; // px between the thinnest token borders; of closer ones some are left out

class Player {
  constructor(root) {
    this.root = root;
    this.audio = new Audio();
    this.picture = new Image();
    this.picture.onload = () => this.draw();
    this.cursor = 0;
    this.selection = null;
    this.hover = null;
    this.until = null; // where playing stops: the end of the selection, or null
    this.build();
  }

  update(data, send) {
    this.send = send;
    this.data = data;
    if (data.id !== this.id) this.load();
    if (data.revision !== this.revision) {
      this.revision = data.revision;
      this.selection = data.selection;
      this.drag = null;
      if (this.audio.paused) this.moveTo(this.selection ? this.selection[0] : this.cursor);
    }
    const grid = this.data.tokens.map(({ stream }) => stream);
    this.gridBox.hidden = grid.length === 0;
    this.layOut();
    this.draw();
    this.show();
  }

  load() {
    const { id, wav, picture } = this.data;
    this.id = id;
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    const bytes = Uint8Array.from(atob(wav), (character) => character.charCodeAt(0));
    this.url = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
    this.audio.src = this.url;
    this.picture.src = `data:image/png;base64,${picture}`;
    this.cursor = 0;
    this.selection = null;
    this.hover = null;
  }

  destroy() {
    this.audio.pause();
    this.watcher.disconnect();
    cancelAnimationFrame(this.frame);
    if (this.url) URL.revokeObjectURL(this.url);
  }

  // -- the elements ----------------------------------------------------------------------------

  build() {
    this.root.innerHTML = `
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
      </div>`;
    const part = (name) => this.root.querySelector(`[data-testid="player-${name}"]`);
    [this.stage, this.canvas, this.overlay, this.tip] = ["stage", "canvas", "overlay", "tip"].map(part);
    [this.playButton, this.allButton, this.clearButton] = ["play", "play-all", "clear"].map(part);
    [this.timeText, this.selectionText, this.gridBox] = ["time", "selection", "grid"].map(part);
    this.gridInput = this.gridBox.querySelector("input");
    this.gridInput.onchange = () => this.draw();
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
      this.layOut();
      this.draw();
    });
    this.watcher.observe(this.stage);
  }

  // Where each strip lies, in CSS pixels.
  layOut() {
    if (!this.data) return;
    this.width = this.stage.clientWidth;
    this.inner = Math.max(this.width - MARGIN.left - MARGIN.right, 1);
    this.strips = {};
    let top = 0;
    for (const [name, height] of Object.entries(STRIPS)) {
      if (name === "curves" && !this.data.curves.length) continue;
      this.strips[name] = { title: top, top: top + HEADER, height, bottom: top + HEADER + height };
      top += HEADER + height + 4;
    }
    this.bottom = top;
    this.height = top + AXIS;
  }

  x(seconds) {
    return MARGIN.left + (seconds / this.data.seconds) * this.inner;
  }

  seconds(x) {
    return this.inside(((x - MARGIN.left) / this.inner) * this.data.seconds);
  }

  // A place in the clip, as exact as it is shown.
  inside(seconds) {
    const rounded = Number(seconds.toFixed(this.decimals()));
    return Math.min(Math.max(rounded, 0), this.data.seconds);
  }

  decimals() {
    return this.data.seconds < 1 ? 3 : 2;
  }

  // -- drawing ---------------------------------------------------------------------------------

  // A context in CSS pixels on a cleared canvas, sharp at any pixel ratio.
  context(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.height = `${this.height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = `12px ${this.theme("font") || "sans-serif"}`;
    context.textBaseline = "middle";
    return context;
  }

  theme(name) {
    return getComputedStyle(this.root).getPropertyValue(`--st-${name}`).trim();
  }

  draw() {
    if (!this.data || !this.width) return;
    const context = this.context(this.canvas);
    this.ink = this.theme("text-color") || "#000";
    this.paper = this.theme("background-color") || "#fff";
    this.accent = this.theme("primary-color") || this.ink;
    if (this.strips.curves) this.drawCurves(context);
    this.drawWaveform(context);
    this.drawSpectrogram(context);
    if (this.gridInput.checked) this.drawGrid(context);
    this.drawAxis(context);
    this.drawOverlay();
  }

  title(context, strip, text) {
    context.fillStyle = this.ink;
    context.textAlign = "left";
    context.fillText(text, MARGIN.left, strip.title + HEADER / 2);
  }

  // A number beside the strip, with a faint line across it.
  tick(context, strip, y, text) {
    context.globalAlpha = 0.15;
    context.fillStyle = this.ink;
    context.fillRect(MARGIN.left, Math.round(y), this.inner, 1);
    context.globalAlpha = 1;
    context.textAlign = "right";
    const inside = Math.min(Math.max(y, strip.top + 6), strip.bottom - 5);
    context.fillText(text, MARGIN.left - 5, inside);
  }

  drawCurves(context) {
    const strip = this.strips.curves;
    const { curves, curvesTitle } = this.data;
    this.title(context, strip, curvesTitle);
    let right = this.width - MARGIN.right;
    for (const { pathway, colour } of [...curves].reverse()) {
      right -= context.measureText(pathway).width;
      context.fillStyle = this.ink;
      context.fillText(pathway, right, strip.title + HEADER / 2);
      context.fillStyle = colour;
      context.fillRect(right - 18, strip.title + HEADER / 2 - 2, 14, 4);
      right -= 28;
    }
    const highest = Math.max(...curves.flatMap(({ mass }) => mass), 0);
    const y = (mass) => strip.bottom - (highest ? mass / highest : 0) * (strip.height - 4);
    this.tick(context, strip, strip.bottom, "0");
    if (highest) this.tick(context, strip, y(highest), shortNumber(highest));
    for (const { colour, start, end, mass } of curves) {
      context.beginPath();
      mass.forEach((value, i) => {
        // A gap between two slices is no value: the line starts anew.
        const gap = i === 0 || start[i] > end[i - 1] + 1e-3;
        context[gap ? "moveTo" : "lineTo"](this.x(start[i]), y(value));
        context.lineTo(this.x(end[i]), y(value));
      });
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.stroke();
    }
  }

  drawWaveform(context) {
    const strip = this.strips.waveform;
    const { low, high, peak } = this.data;
    this.title(context, strip, "waveform (full scale 1)");
    const middle = strip.top + strip.height / 2;
    const reach = strip.height / 2 - 1;
    this.tick(context, strip, middle, "0");
    if (peak) this.tick(context, strip, middle - reach, shortNumber(peak));
    context.beginPath();
    const at = (i) => MARGIN.left + ((i + 0.5) / low.length) * this.inner;
    high.forEach((value, i) => context.lineTo(at(i), middle - value * reach));
    for (let i = low.length - 1; i >= 0; i -= 1) context.lineTo(at(i), middle - low[i] * reach);
    context.closePath();
    context.fillStyle = context.strokeStyle = this.ink;
    context.globalAlpha = 0.75;
    context.lineWidth = 0.75;
    context.fill();
    context.stroke();
    context.globalAlpha = 1;
  }

  drawSpectrogram(context) {
    const strip = this.strips.spectrogram;
    const { left, right, ticks, tickLabels, scale, decibels } = this.data;
    this.title(context, strip, "frequency (kHz)");
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, strip.top, this.inner, strip.height);
    context.clip();
    context.fillStyle = scale[0];
    context.fillRect(MARGIN.left, strip.top, this.inner, strip.height);
    if (this.picture.complete && this.picture.naturalWidth) {
      const edge = this.x(left);
      context.drawImage(this.picture, edge, strip.top, this.x(right) - edge, strip.height);
    }
    context.restore();
    ticks.forEach((tick, i) => {
      const y = strip.bottom - tick * strip.height;
      context.fillStyle = this.ink;
      context.fillRect(MARGIN.left - 4, Math.round(y), 4, 1);
      context.textAlign = "right";
      context.fillText(tickLabels[i], MARGIN.left - 7, y);
    });
    this.drawScale(context, strip.title + HEADER / 2, scale, decibels);
  }

  // What the spectrogram's colours mean, at the right of its title.
  drawScale(context, y, scale, decibels) {
    const end = this.width - MARGIN.right;
    context.fillStyle = this.ink;
    context.textAlign = "right";
    const unit = this.width < 480 ? "0 dB" : "0 dB (loudest)";
    context.fillText(unit, end, y);
    const bar = end - context.measureText(unit).width - 6;
    const gradient = context.createLinearGradient(bar - 60, 0, bar, 0);
    scale.forEach((colour, i) => gradient.addColorStop(i / (scale.length - 1), colour));
    context.fillText(`−${decibels}`, bar - 66, y);
    context.fillStyle = gradient;
    context.fillRect(bar - 60, y - 5, 60, 10);
  }

  drawGrid(context) {
    const strip = this.strips.spectrogram;
    const labels = this.data.tokens.map(({ stream, start, end }, i) => {
      const width = Math.min(i + 1, 2);
      const spacing = this.x(end[0]) - this.x(start[0]);
      const every = Math.max(1, Math.ceil((SPACING * width) / spacing));
      context.fillStyle = "#fff";
      context.globalAlpha = 0.35 * width;
      for (const seconds of [...start.filter((_, n) => n % every === 0), end[end.length - 1]]) {
        context.fillRect(this.x(seconds) - width / 2, strip.top, width, strip.height);
      }
      const left = every > 1 ? `, a line every ${every}` : "";
      return `${stream} ${trimmed(end[0] - start[0])} s${left}`;
    });
    context.globalAlpha = 1;
    this.gridBox.querySelector("span").textContent = `token grid (${labels.join("; ")})`;
  }

  drawAxis(context) {
    const { seconds, timeTitle } = this.data;
    const step = niceStep(seconds, Math.max(2, Math.floor(this.inner / 70)));
    context.fillStyle = this.ink;
    context.fillRect(MARGIN.left, this.bottom - 4, this.inner, 1);
    context.textAlign = "center";
    for (let i = 0; i * step <= seconds * (1 + 1e-9); i += 1) {
      const x = this.x(i * step);
      context.fillRect(Math.round(x), this.bottom - 4, 1, 5);
      context.fillText(trimmed(i * step), Math.min(x, this.width - 10), this.bottom + 9);
    }
    context.fillText(timeTitle, MARGIN.left + this.inner / 2, this.bottom + 25);
  }

  // Selection, pointer and cursor: redrawn while sound plays, over what stays.
  drawOverlay() {
    if (!this.width) return;
    const context = this.context(this.overlay);
    const shown = this.drag?.moved ? this.drag.span : this.selection;
    for (const { top, height } of Object.values(this.strips)) {
      if (shown) {
        const [from, to] = shown.map((seconds) => this.x(seconds));
        context.fillStyle = this.paper;
        context.globalAlpha = 0.6;
        context.fillRect(MARGIN.left, top, from - MARGIN.left, height);
        context.fillRect(to, top, MARGIN.left + this.inner - to, height);
        context.globalAlpha = 1;
        context.fillStyle = this.accent;
        context.fillRect(from - 1, top, 2, height);
        context.fillRect(to - 1, top, 2, height);
      }
      if (this.hover !== null) {
        context.globalAlpha = 0.5;
        this.line(context, this.x(this.hover), 1, top, height);
        context.globalAlpha = 1;
      }
      this.line(context, this.x(this.cursor), 2, top, height);
    }
  }

  // Visible on light and dark alike.
  line(context, x, width, top, height) {
    context.fillStyle = this.paper;
    context.fillRect(x - width / 2 - 1, top, width + 2, height);
    context.fillStyle = this.ink;
    context.fillRect(x - width / 2, top, width, height);
  }

  // -- words -----------------------------------------------------------------------------------

  show() {
    if (!this.data) return;
    const { seconds } = this.data;
    const playing = !this.audio.paused;
    const what = this.selection ? "Play selection" : "Play";
    this.playButton.textContent = playing ? "❚❚ Pause" : `▶ ${what}`;
    this.allButton.hidden = !this.selection;
    this.clearButton.hidden = !this.selection;
    this.timeText.textContent = `${this.digits(this.cursor)} / ${this.digits(seconds)} s`;
    const shown = this.drag?.moved ? this.drag.span : this.selection;
    this.selectionText.textContent = shown
      ? `Selected: ${this.words(shown)}`
      : "Drag across the picture to select a stretch of the sound.";
    this.stage.setAttribute("aria-valuemax", seconds.toFixed(2));
    this.stage.setAttribute("aria-valuenow", this.cursor.toFixed(2));
    const values = this.valuesAt(this.cursor).join(", ");
    this.stage.setAttribute("aria-valuetext", [`${this.digits(this.cursor)} s`, values].join(" "));
  }

  digits(seconds) {
    return seconds.toFixed(this.decimals());
  }

  // "1.20–1.80 s (frames 12–17, summary 4–5)"
  words([from, to]) {
    const tokens = this.data.tokens.map(({ stream, start, end }) => {
      const first = end.findIndex((edge) => edge > from + 1e-6);
      const last = start.findLastIndex((edge) => edge < to - 1e-6);
      if (first < 0 || last < first) return `no ${stream}`;
      return first === last ? `${stream} ${first}` : `${stream} ${first}–${last}`;
    });
    const list = tokens.length ? ` (tokens: ${tokens.join(", ")})` : "";
    return `${this.digits(from)}–${this.digits(to)} s${list}`;
  }

  valuesAt(seconds) {
    return this.data.curves.flatMap(({ pathway, start, end, mass }) => {
      const i = start.findIndex((from, n) => from <= seconds && seconds < end[n]);
      return i < 0 ? [] : [`${pathway} ${shortNumber(mass[i])}`];
    });
  }

  pointAt(x) {
    const inside = x !== null && x >= MARGIN.left && x <= MARGIN.left + this.inner;
    this.hover = inside ? this.seconds(x) : null;
    this.tip.hidden = !inside;
    if (inside) {
      this.tip.textContent = [`${this.digits(this.hover)} s`, ...this.valuesAt(this.hover)].join(" · ");
      const right = this.width - this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(0, Math.min(x + 10, right))}px`;
    }
    this.drawOverlay();
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
    this.until = until;
    this.moveTo(from);
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
    this.drawOverlay();
    this.show();
  }

  moveTo(seconds) {
    this.cursor = this.inside(seconds);
    this.audio.currentTime = this.cursor;
    this.drawOverlay();
    this.show();
  }

  // -- selecting -------------------------------------------------------------------------------

  select(span, send = true) {
    this.selection = span;
    this.until = null; // what plays, plays on
    this.drawOverlay();
    this.show();
    if (send) this.report();
  }

  report() {
    this.send("selection", { revision: this.revision, value: this.selection });
  }

  pointerDown(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    const x = this.across(event);
    this.drag = { x, from: this.seconds(x), moved: false, span: null };
  }

  pointerMove(event) {
    const x = this.across(event);
    if (this.drag) {
      this.drag.moved ||= Math.abs(x - this.drag.x) > CLICK;
      this.drag.span = [this.drag.from, this.seconds(x)].sort((a, b) => a - b);
      this.show();
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
      this.moveTo(this.seconds(this.across(event)));
    }
  }

  cancelDrag() {
    this.drag = null;
    this.drawOverlay();
    this.show();
  }

  across(event) {
    return event.clientX - this.stage.getBoundingClientRect().left;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.min(STEP, this.data.seconds / 10);
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
    const span = [this.fixed, this.cursor].sort((a, b) => a - b);
    this.select(span[1] > span[0] ? span : null, false);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.report(), 300);
  }
}

// -- numbers -----------------------------------------------------------------------------------

// 1, 2 or 5 times a power of ten, so that at most `count` steps fit.
function niceStep(length, count) {
  const rough = length / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

function trimmed(value) {
  return String(Number(value.toFixed(4)));
}

function shortNumber(value) {
  return value >= 0.01 || value === 0 ? String(Number(value.toPrecision(2))) : value.toExponential(0);
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
