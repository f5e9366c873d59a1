// The null distribution as bars, with a mark for each bridge. Colours are the style sheet's.

const SVG = 'http://www.w3.org/2000/svg';
const TOP = 66, HEIGHT = 130, FOOT = 24, BINS = 24;
const NARROW = 280;
const DASHES = { you: '', lexical: '8 4', haiku: '2 4' };

function node(tag, attributes = {}, text = '') {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== '') made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

// `width` is that of the place it gets, in pixels, so that its text is as large as any other.
export function histogram(samples, marks, width) {
  const WIDTH = Math.max(NARROW, width);
  const all = [...samples, ...marks.map((mark) => mark.value)];
  const least = Math.min(...all), most = Math.max(...all);
  const margin = (most - least || 1) * 0.04;
  const from = least - margin, span = most - least + 2 * margin;
  const x = (value) => ((value - from) / span) * WIDTH;
  const counts = new Array(BINS).fill(0);
  for (const sample of samples) counts[Math.min(BINS - 1, Math.floor(((sample - from) / span) * BINS))] += 1;
  const highest = Math.max(...counts);
  const said = marks.map((mark) => `${mark.name} ${mark.value.toFixed(3)}, better than ${mark.percentile.toFixed(0)} percent of them`);
  const chart = node('svg', {
    viewBox: `0 0 ${WIDTH} ${TOP + HEIGHT + FOOT}`,
    role: 'img',
    'aria-label': `${samples.length} random bridges score ${Math.min(...samples).toFixed(3)} to ${Math.max(...samples).toFixed(3)}. ${said.join('. ')}.`,
  });
  counts.forEach((count, bin) => {
    const height = (count / highest) * HEIGHT;
    if (count) chart.append(node('rect', { class: 'bar', x: (bin * WIDTH) / BINS + 1, y: TOP + HEIGHT - height, width: WIDTH / BINS - 2, height }));
  });
  chart.append(node('line', { class: 'axis', x1: 0, x2: WIDTH, y1: TOP + HEIGHT, y2: TOP + HEIGHT }));
  for (const [value, anchor] of [[from, 'start'], [from + span / 2, 'middle'], [from + span, 'end']]) {
    chart.append(node('text', { x: x(value), y: TOP + HEIGHT + 18, 'text-anchor': anchor }, value.toFixed(2)));
  }
  // All lines first, so that none crosses a label.
  const lines = [], labels = [];
  marks.forEach((mark, at) => {
    const place = x(mark.value), row = 16 + at * 18;
    // A label stands on the side of its mark that has room.
    const left = place > WIDTH * 0.6;
    const line = node('line', { x1: place, x2: place, y1: row - 10, y2: TOP + HEIGHT, 'stroke-dasharray': DASHES[mark.kind] });
    const label = node('text', { x: place + (left ? -8 : 8), y: row, 'text-anchor': left ? 'end' : 'start' }, `${mark.name} ${mark.value.toFixed(3)}`);
    for (const [part, kept] of [[line, lines], [label, labels]]) {
      const drawn = node('g', { class: `mark ${mark.kind}` });
      drawn.append(part);
      kept.push(drawn);
    }
  });
  chart.append(...lines, ...labels);
  return chart;
}
