// Sums about seconds and samples, without a page: which tokens a stretch takes, which part of the
// clip is shown, and how its samples look there.

const SHORTEST = 0.05; // s, that can be shown over the whole width

// -- what a stretch takes ----------------------------------------------------------------------

// palscope.audio._timegrid.overlaps: whether each token overlaps the stretch from t0 to t1.
function overlaps(starts, ends, t0, t1) {
  const nanoseconds = (seconds) => rint(seconds * 1e9);
  const first = nanoseconds(t0);
  const last = Math.max(nanoseconds(t1), first + 1);
  const touch = Math.min(1e-6 * 1e9, (last - first) / 4);
  return starts.map(
    (start, i) => nanoseconds(start) < last - touch && nanoseconds(ends[i]) > first + touch,
  );
}

// The nearest whole number, of two the even one, as numpy's.
function rint(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}

// -- what is shown -----------------------------------------------------------------------------

// The window [from, to] made `factor` times as short about a place in it, within `length` seconds.
function zoomed([from, to], factor, about, length) {
  const span = Math.min(Math.max((to - from) / factor, Math.min(SHORTEST, length)), length);
  const share = (about - from) / (to - from);
  return within(about - share * span, span, length);
}

// The window of `span` seconds from `from`, moved into the clip.
function within(from, span, length) {
  const start = Math.min(Math.max(from, 0), length - span);
  return [start, start + span];
}

// The window a stretch fills, with a little of what is around it.
function around([from, to], length) {
  const span = Math.min(Math.max(1.1 * (to - from), SHORTEST), length);
  return within((from + to - span) / 2, span, length);
}

// The window in which a place can be seen: where it ran out, a page further.
function following([from, to], seconds, length) {
  if (seconds >= from && seconds <= to) return [from, to];
  return within(seconds - 0.1 * (to - from), to - from, length);
}

// -- samples -----------------------------------------------------------------------------------

// The samples (16 bits, mono) of a WAV file.
function samplesOf(bytes) {
  const view = new DataView(bytes.buffer);
  let at = 12; // behind RIFF, length, WAVE: chunks of a name, a length, and as many bytes
  const name = () => String.fromCharCode(...bytes.subarray(at, at + 4));
  while (name() !== "data") at += 8 + view.getUint32(at + 4, true);
  return new Int16Array(bytes.buffer.slice(at + 8, at + 8 + view.getUint32(at + 4, true)));
}

// Lowest and highest sample in each of `columns` equal parts of the window, at full scale 1.
function envelope(samples, rate, [from, to], columns) {
  const [low, high] = [new Float32Array(columns), new Float32Array(columns)];
  const edge = (i) => Math.floor((from + ((to - from) * i) / columns) * rate);
  for (let i = 0; i < columns; i += 1) {
    const first = Math.min(edge(i), samples.length - 1);
    const end = Math.min(Math.max(edge(i + 1), first + 1), samples.length);
    let [least, most] = [samples[first], samples[first]];
    for (let n = first + 1; n < end; n += 1) {
      if (samples[n] < least) least = samples[n];
      if (samples[n] > most) most = samples[n];
    }
    low[i] = least / 32768;
    high[i] = most / 32768;
  }
  return { low, high };
}
