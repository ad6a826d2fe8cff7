// What the player draws, strip under strip on one axis of seconds: attention, waveform,
// spectrogram, effects, of which `shown` is the window that is seen. `draw` fills the lower canvas; `mark`
// fills the upper one, as often as the screen can show while sound plays.

const MARGIN = { left: 46, right: 12 }; // px, of all strips
const HEADER = 20; // px, above a strip: its title
const HEIGHTS = { curves: 88, waveform: 44, spectrogram: 132, effects: 14 }; // px
const TINT = 0.1; // of the selection: what is drawn below keeps a contrast of 3:1
const AXIS = 40; // px, below: seconds
const LINES = 3; // of labels over the spectrogram
const SPACING = 10; // px between the thinnest token borders; of closer ones some are left out

class Picture {
  constructor(stage, lower, upper) {
    this.stage = stage;
    this.lower = lower;
    this.upper = upper;
    this.image = new Image(); // the spectrogram
    this.image.onload = () => this.draw();
    this.gridShown = true;
    this.shown = [0, 1]; // s
  }

  // -- places ----------------------------------------------------------------------------------

  // Where each strip lies, in CSS pixels.
  layOut() {
    this.width = this.stage.clientWidth;
    this.inner = Math.max(this.width - MARGIN.left - MARGIN.right, 1);
    this.strips = {};
    let top = 0;
    for (const [name, height] of Object.entries(HEIGHTS)) {
      // The curves' title and legend stand above the canvas: they may need several lines.
      const header = name === "curves" ? 4 : HEADER;
      if (name === "curves" && !this.data.curves.length) continue;
      if (name === "effects" && !this.data.effects) continue;
      this.strips[name] = { title: top, top: top + header, height, bottom: top + header + height };
      top += header + height + 4;
    }
    this.bottom = top - 4;
    this.height = this.bottom + AXIS;
  }

  get span() {
    return this.shown[1] - this.shown[0];
  }

  get whole() {
    return this.span > this.data.seconds * (1 - 1e-9);
  }

  x(seconds) {
    return MARGIN.left + ((seconds - this.shown[0]) / this.span) * this.inner;
  }

  // Beside the strips it is their first or last second.
  seconds(x) {
    const share = Math.min(Math.max((x - MARGIN.left) / this.inner, 0), 1);
    return this.shown[0] + share * this.span;
  }

  holds(x) {
    return x >= MARGIN.left && x <= MARGIN.left + this.inner;
  }

  // -- drawing ---------------------------------------------------------------------------------

  draw() {
    if (!this.data) return;
    this.layOut();
    if (!this.width) return; // not on the page at present
    this.ink = this.theme("text-color") || "#000";
    this.paper = this.theme("background-color") || "#fff";
    this.accent = this.theme("primary-color") || this.ink;
    const context = this.context(this.lower);
    if (this.strips.curves) this.drawCurves(context);
    this.drawWaveform(context);
    this.drawSpectrogram(context);
    this.inside(context, this.strips.spectrogram, () => {
      if (this.gridShown) this.drawGrid(context);
      this.drawFrames(context);
      this.drawLabels(context);
    });
    if (this.strips.effects) this.drawEffects(context);
    this.drawAxis(context);
    if (!this.whole) this.drawPlace(context);
    this.mark(this.marks);
  }

  // Selection, pointer and cursor, in seconds or null.
  mark(marks) {
    this.marks = marks;
    if (!this.width || !marks) return;
    const context = this.context(this.upper);
    for (const strip of Object.values(this.strips)) {
      const tint = strip === this.strips.effects ? 0 : TINT; // whose colours are read
      this.inside(context, strip, () => this.drawMarks(context, strip, marks, tint));
    }
  }

  drawMarks(context, { top, height }, { selection, hover, cursor }, tint) {
    if (selection) {
      const [from, to] = selection.map((seconds) => this.x(seconds));
      context.fillStyle = this.accent;
      context.globalAlpha = tint;
      context.fillRect(from, top, to - from, height);
      context.globalAlpha = 1;
      context.fillRect(from - 1, top, 2, height);
      context.fillRect(to - 1, top, 2, height);
      context.fillRect(from, top, to - from, 2);
      context.fillRect(from, top + height - 2, to - from, 2);
    }
    if (hover !== null) {
      context.globalAlpha = 0.5;
      this.line(context, this.x(hover), 1, top, height);
      context.globalAlpha = 1;
    }
    this.line(context, this.x(cursor), 2, top, height);
  }

  // Draws nothing beside the strip (but a line at its very edge).
  inside(context, { top, height }, draw) {
    context.save();
    context.beginPath();
    context.rect(MARGIN.left - 2, top, this.inner + 4, height);
    context.clip();
    draw();
    context.restore();
  }

  // Visible on light and dark alike.
  line(context, x, width, top, height) {
    context.fillStyle = this.paper;
    context.fillRect(x - width / 2 - 1, top, width + 2, height);
    context.fillStyle = this.ink;
    context.fillRect(x - width / 2, top, width, height);
  }

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
    return getComputedStyle(this.stage).getPropertyValue(`--st-${name}`).trim();
  }

  // -- the strips ------------------------------------------------------------------------------

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
    const { curves } = this.data;
    const highest = Math.max(...curves.flatMap(({ mass }) => mass), 0);
    const y = (mass) => strip.bottom - (highest ? mass / highest : 0) * (strip.height - 4);
    this.tick(context, strip, strip.bottom, "0");
    if (highest) this.tick(context, strip, y(highest), shortNumber(highest));
    this.inside(context, strip, () => {
      for (const curve of curves) this.drawCurve(context, curve, y);
    });
  }

  drawCurve(context, { colour, start, end, mass }, y) {
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

  drawWaveform(context) {
    const strip = this.strips.waveform;
    const { peak, rate } = this.data;
    this.title(context, strip, "waveform (full scale 1)");
    const middle = strip.top + strip.height / 2;
    const reach = strip.height / 2 - 1;
    this.tick(context, strip, middle, "0");
    if (peak) this.tick(context, strip, middle - reach, shortNumber(peak));
    const columns = Math.ceil(this.inner * (window.devicePixelRatio || 1));
    const { low, high } = envelope(this.samples, rate, this.shown, columns);
    const at = (i) => MARGIN.left + ((i + 0.5) / columns) * this.inner;
    const y = (value) => middle - (value / (peak || 1)) * reach;
    context.beginPath();
    high.forEach((value, i) => context.lineTo(at(i), y(value)));
    for (let i = columns - 1; i >= 0; i -= 1) context.lineTo(at(i), y(low[i]));
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
    if (this.image.complete && this.image.naturalWidth) {
      const edge = this.x(left);
      context.drawImage(this.image, edge, strip.top, this.x(right) - edge, strip.height);
    }
    context.restore();
    ticks.forEach((tick, i) => {
      const y = strip.bottom - tick * strip.height;
      context.fillStyle = this.ink;
      context.fillRect(MARGIN.left - 4, Math.round(y), 4, 1);
      context.textAlign = "right";
      context.fillText(tickLabels[i], MARGIN.left - 7, y);
    });
    const loudest = this.width < 480 ? "0 dB" : "0 dB (loudest)";
    this.drawScale(context, strip, scale, `−${decibels}`, loudest);
  }

  // What a strip's colours mean, at the right of its title.
  drawScale(context, strip, scale, lowest, highest) {
    const [y, end] = [strip.title + HEADER / 2, this.width - MARGIN.right];
    context.fillStyle = this.ink;
    context.textAlign = "right";
    context.fillText(highest, end, y);
    const bar = end - context.measureText(highest).width - 6;
    const gradient = context.createLinearGradient(bar - 60, 0, bar, 0);
    scale.forEach((colour, i) => gradient.addColorStop(i / (scale.length - 1), colour));
    context.fillText(lowest, bar - 66, y);
    context.fillStyle = gradient;
    context.fillRect(bar - 60, y - 5, 60, 10);
  }

  drawGrid(context) {
    const strip = this.strips.spectrogram;
    this.data.tokens.forEach(({ start, end }, i) => {
      const width = lineWidth(i);
      const every = this.gridStep(i);
      context.fillStyle = "#fff";
      context.globalAlpha = 0.35 * width;
      for (const seconds of [...start.filter((_, n) => n % every === 0), end[end.length - 1]]) {
        context.fillRect(this.x(seconds) - width / 2, strip.top, width, strip.height);
      }
    });
    context.globalAlpha = 1;
  }

  // What differs from another clip.
  drawFrames(context) {
    const { top, height } = this.strips.spectrogram;
    this.data.frames.forEach(([start, end]) => {
      const [from, to] = [this.x(start), this.x(end)];
      for (const [colour, width] of [["#000", 5], ["#ff9d45", 3]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.strokeRect(from + 2, top + 2, to - from - 4, height - 4);
      }
    });
  }

  // What sounds when, at the top of the spectrogram; what would overlap goes a line down, and what
  // finds no line has a mark alone.
  drawLabels(context) {
    const { top, bottom } = this.strips.spectrogram;
    const ends = []; // of each line, px
    this.data.labels.forEach(({ text, start, end }) => {
      if (end < this.shown[0] || start > this.shown[1]) return;
      const [from, to] = [Math.max(this.x(start), MARGIN.left - 1), this.x(end)];
      const width = context.measureText(text).width + 10;
      let line = ends.findIndex((edge) => edge <= from);
      if (line < 0) line = Math.min(ends.length, LINES);
      const y = top + 3 + 18 * line;
      context.fillStyle = "#fff";
      if (line === LINES) {
        context.fillRect(from, y, 1, 6);
        return;
      }
      for (const edge of [this.x(start), to]) context.fillRect(edge - 0.5, y, 1, bottom - y);
      ends[line] = Math.max(from + width, to);
      context.fillRect(from, y, to - from, 1);
      context.globalAlpha = 0.85;
      context.fillStyle = "#000";
      context.fillRect(from, y, width, 16);
      context.globalAlpha = 1;
      context.fillStyle = "#fff";
      context.textAlign = "left";
      context.fillText(text, from + 5, y + 8);
    });
  }

  // One in how many token borders of stream `i` is drawn.
  gridStep(i) {
    const { start, end } = this.data.tokens[i];
    const spacing = this.x(end[0]) - this.x(start[0]);
    return Math.max(1, Math.ceil((SPACING * lineWidth(i)) / spacing));
  }

  // What cutting each stretch does: red where the answer's lead grows, blue where it shrinks.
  drawEffects(context) {
    const strip = this.strips.effects;
    const { title, start, end, colour, most, scale } = this.data.effects;
    this.title(context, strip, title);
    this.drawScale(context, strip, scale, signed(-most), `${signed(most)} nats`);
    this.inside(context, strip, () => {
      colour.forEach((each, i) => {
        const [from, to] = [start[i], end[i]].map((seconds) => Math.round(this.x(seconds)));
        context.fillStyle = each; // whole pixels, so that no seam shows between two
        context.fillRect(from, strip.top, to - from, strip.height);
      });
      // 0 is white, as a light page is.
      const [from, to] = [this.x(start[0]), this.x(end[end.length - 1])];
      context.strokeStyle = this.ink;
      context.lineWidth = 1;
      context.strokeRect(from + 0.5, strip.top + 0.5, to - from - 1, strip.height - 1);
    });
  }

  drawAxis(context) {
    const [from, to] = this.shown;
    const step = niceStep(this.span, Math.max(2, Math.floor(this.inner / 70)));
    context.fillStyle = this.ink;
    context.fillRect(MARGIN.left, this.bottom, this.inner, 1);
    context.textAlign = "center";
    const slack = 1e-9 * this.span;
    for (let i = Math.ceil((from - slack) / step); i * step <= to + slack; i += 1) {
      const x = this.x(i * step);
      context.fillRect(Math.round(x), this.bottom, 1, 5);
      context.fillText(trimmed(i * step), Math.min(x, this.width - 12), this.bottom + 13);
    }
    context.fillText(this.data.timeTitle, MARGIN.left + this.inner / 2, this.bottom + 29);
  }

  // Where in the clip the window is, below the axis.
  drawPlace(context) {
    const [from, to] = this.shown.map((seconds) => seconds / this.data.seconds);
    context.fillStyle = this.ink;
    context.globalAlpha = 0.2;
    context.fillRect(MARGIN.left, this.height - 3, this.inner, 3);
    context.globalAlpha = 1;
    context.fillStyle = this.accent;
    const width = Math.max((to - from) * this.inner, 3);
    context.fillRect(MARGIN.left + from * this.inner, this.height - 3, width, 3);
  }
}

// -- numbers -----------------------------------------------------------------------------------

// px: thin for the first stream of tokens, thick for the next
function lineWidth(i) {
  return Math.min(i + 1, 2);
}

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
  return value >= 0.001 || value === 0 ? String(Number(value.toPrecision(2))) : value.toExponential(0);
}
