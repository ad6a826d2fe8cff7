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

// What the curves are at a place.
function valuesAt({ curves }, seconds) {
  return curves.flatMap(({ pathway, start, end, mass }) => {
    const i = start.findIndex((from, n) => from <= seconds && seconds < end[n]);
    return i < 0 ? [] : [`${pathway} ${shortNumber(mass[i])}`];
  });
}

function labelWords({ frames }, { text, start, end }) {
  const framed = frames.some(([from, to]) => from === start && to === end);
  return `${text} ${stretch([start, end])}${framed ? ", differs" : ""}`;
}

// Of the picture as a whole; its labels are listed beside it.
function pictureWords({ curves, curvesTitle, peak, decibels }, shown) {
  const highest = curves.map(({ pathway, start, end, mass }) => {
    const i = mass.indexOf(Math.max(...mass));
    return `${pathway} ${shortNumber(mass[i])} at ${stretch([start[i], end[i]])}`;
  });
  const above = curves.length ? [`${curvesTitle}, highest: ${highest.join("; ")}`] : [];
  return [
    ...above,
    `Waveform, loudest sample ${shortNumber(peak)} of full scale 1`,
    `Spectrogram up to 8 kHz, ${decibels} dB deep`,
    `Shown: ${stretch(shown)}`,
  ].join(". ");
}
