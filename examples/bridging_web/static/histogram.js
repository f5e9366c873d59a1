// The null distribution as bars, with a mark for each bridge. Colours are the style sheet's.

const SVG = 'http://www.w3.org/2000/svg';
const TOP = 66, HEIGHT = 130, FOOT = 24, BINS = 24;
const NARROW = 280;
const CHARACTER = 8; // pixels that a character of a label takes at most
const DASHES = { you: '', lexical: '8 4', haiku: '2 4' };

function node(tag, attributes = {}, text = '') {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== '') made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

const permutations = (all) => (all.length < 2 ? [all] : all.flatMap((one, at) => permutations(all.filter((_, other) => other !== at)).map((rest) => [one, ...rest])));

// Returns the marks by row, each with its label's side, so that no line crosses a label if that can be.
function arranged(marks, width) {
  let best = null, least = Infinity;
  for (const order of permutations(marks)) {
    for (let sides = 0; sides < 2 ** order.length; sides += 1) {
      const rows = order.map((mark, at) => ({ ...mark, left: Boolean(sides & (1 << at)) }));
      let cost = 0;
      rows.forEach(({ place, wide, left }, at) => {
        const [from, to] = left ? [place - wide, place] : [place, place + wide];
        if (from < 0 || to > width) cost += 10;
        // A line of a row above passes every row below it.
        for (const above of rows.slice(0, at)) if (from <= above.place && above.place <= to) cost += 1;
      });
      if (cost < least) [best, least] = [rows, cost];
    }
  }
  return best ?? [];
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
  const placed = arranged(marks.map((mark) => ({ mark, place: x(mark.value), wide: 8 + CHARACTER * (mark.name.length + 6) })), WIDTH);
  placed.forEach(({ mark, place, left }, at) => {
    const row = 16 + at * 18;
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
