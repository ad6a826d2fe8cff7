// What the picture shows, in words: for the line below it, the pointer, and whoever does not see it.

const DECIMALS = 2; // of seconds, shown and sent

function digits(seconds) {
  return seconds.toFixed(DECIMALS);
}

function stretch([from, to]) {
  return from === to ? `${digits(from)} s` : `${digits(from)}–${digits(to)} s`;
}

// "1.20–1.80 s (tokens: frames 12–17, summary 4–5)"
function selectionWords({ tokens }, [from, to]) {
  const parts = tokens.map(({ stream, start, end }) => {
    const taken = overlaps(start, end, from, to);
    const [first, last] = [taken.indexOf(true), taken.lastIndexOf(true)];
    if (first < 0) return `no ${stream}`;
    return first === last ? `${stream} ${first}` : `${stream} ${first}–${last}`;
  });
  return stretch([from, to]) + (parts.length ? ` (tokens: ${parts.join(", ")})` : "");
}

// What the curves and effects are at a place.
function valuesAt({ curves, effects }, seconds) {
  const at = ({ start, end }) => start.findIndex((from, n) => from <= seconds && seconds < end[n]);
  const masses = curves.flatMap((curve) => {
    const i = at(curve);
    return i < 0 ? [] : [`${curve.pathway} ${shortNumber(curve.mass[i])}`];
  });
  const i = effects ? at(effects) : -1;
  return i < 0 ? masses : [...masses, `effect ${signed(effects.change[i])} nats`];
}

// "−2.02"
function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

function effectWords({ title, about, start, end, change }) {
  const size = change.map(Math.abs);
  const i = size.indexOf(Math.max(...size));
  const most = `${stretch([start[i], end[i]])}, by ${signed(change[i])} nats`;
  return `${title}: of ${change.length} stretches cut one by one, the ${about} changes most by cutting ${most}`;
}

function labelWords({ frames }, { text, start, end }) {
  const framed = frames.some(([from, to]) => from === start && to === end);
  return `${text} ${stretch([start, end])}${framed ? ", differs" : ""}`;
}

// Of the picture as a whole; its labels are listed beside it.
function pictureWords({ curves, curvesTitle, effects, peak, decibels }, shown) {
  const highest = curves.map(({ pathway, start, end, mass }) => {
    const i = mass.indexOf(Math.max(...mass));
    return `${pathway} ${shortNumber(mass[i])} at ${stretch([start[i], end[i]])}`;
  });
  const above = curves.length ? [`${curvesTitle}, highest: ${highest.join("; ")}`] : [];
  return [
    ...above,
    `Waveform, loudest sample ${shortNumber(peak)} of full scale 1`,
    `Spectrogram up to 8 kHz, ${decibels} dB deep`,
    ...(effects ? [effectWords(effects)] : []),
    `Shown: ${stretch(shown)}`,
  ].join(". ");
}
