// Small charts in SVG. Each has its text beside it and says the same in its label.

import { h, s, say } from "./dom.js";
import { number, percent } from "./format.js";

export const SECONDS = 180;
const HEIGHT = 40;
const GAP = 10; // seconds without a value that a line passes over

/** The next of 1, 2, 5, 10, 20 … that is not below `value`. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** A line chart over the last three minutes: `lines` is [{name, class}], `format` says a value. */
export class LineChart {
  constructor(title, lines, format = number) {
    this.title = title;
    this.lines = lines;
    this.format = format;
    this.paths = lines.map((line) => s("path", { class: `line ${line.class}` }));
    this.area = s("path", { class: `area ${lines[0].class}` });
    this.svg = s(
      "svg",
      { role: "img", viewBox: `0 0 ${SECONDS - 1} ${HEIGHT}`, preserveAspectRatio: "none" },
      s("line", { class: "grid", x1: 0, x2: SECONDS - 1, y1: 0.5, y2: 0.5 }),
      s("line", { class: "grid", x1: 0, x2: SECONDS - 1, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      this.area,
      this.paths,
    );
    this.top = h("span", { class: "top" });
    this.now = lines.map((line) => h("b", { class: `now ${line.class}` }));
    const legend = lines.map((line, i) =>
      h("span", { class: "key" }, lines.length > 1 && h("i", { class: `swatch ${line.class}` }), lines.length > 1 && line.name, this.now[i]),
    );
    this.element = h(
      "figure",
      { class: "card chart" },
      h("figcaption", {}, h("span", { class: "name" }, title, this.top), h("span", { class: "legend" }, legend)),
      h("div", { class: "plot" }, this.svg),
      h("div", { class: "ends", "aria-hidden": "true" }, h("span", { text: "3 min ago" }), h("span", { text: "now" })),
    );
  }

  /** `rows` is a list of values for each line, the latest last; null where there is none. */
  update(rows) {
    const known = rows.flat().filter((value) => value !== null && value !== undefined);
    const top = ceiling(Math.max(0, ...known));
    say(this.top, known.length ? `to ${this.format(top)}` : "");
    const texts = rows.map((values, i) => {
      const last = values.slice(-GAP).findLast((value) => value !== null && value !== undefined) ?? null;
      say(this.now[i], this.format(last));
      this.paths[i].setAttribute("d", path(values, top));
      const own = values.filter((value) => value !== null && value !== undefined);
      const highest = own.length ? this.format(Math.max(...own)) : "nothing";
      return `${this.lines[i].name} now ${this.format(last)}, highest ${highest}`;
    });
    this.area.setAttribute("d", path(rows[0], top, true));
    this.svg.setAttribute("aria-label", `${this.title}, last three minutes: ${texts.join("; ")}`);
  }
}

function path(values, top, closed = false) {
  const first = SECONDS - values.length;
  const end = (x) => (closed ? `L${x} ${HEIGHT}Z` : "");
  let d = "";
  let last = null;
  values.forEach((value, i) => {
    if (value === null || value === undefined) return;
    const x = first + i;
    const y = (HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(2);
    if (last === null || x - last > GAP) {
      d += last === null ? "" : end(last);
      d += closed ? `M${x} ${HEIGHT}L${x} ${y}` : `M${x} ${y}h.01`;
    } else d += `L${x} ${y}`;
    last = x;
  });
  return last === null ? "" : d + end(last);
}

/** How results came out: one bar of shares, with its legend. */
export class ShareChart {
  constructor(title, parts) {
    this.title = title;
    this.parts = parts;
    this.bars = parts.map((part) => s("rect", { class: part.class, y: 0, height: 10 }));
    this.svg = s("svg", { role: "img", class: "shares", viewBox: "0 0 100 10", preserveAspectRatio: "none" }, this.bars);
    this.values = parts.map(() => h("b"));
    this.total = h("b", { class: "now" });
    this.element = h(
      "figure",
      { class: "card chart" },
      h("figcaption", {}, h("span", { class: "name", text: title }), h("span", { class: "legend" }, this.total)),
      this.svg,
      h(
        "ul",
        { class: "parts" },
        parts.map((part, i) => h("li", {}, h("i", { class: `swatch ${part.class}` }), part.name, this.values[i])),
      ),
    );
  }

  update(counts) {
    const total = counts.reduce((sum, count) => sum + count, 0);
    let x = 0;
    counts.forEach((count, i) => {
      const width = total ? (count / total) * 100 : 0;
      this.bars[i].setAttribute("x", x);
      this.bars[i].setAttribute("width", width);
      x += width;
      say(this.values[i], total ? percent(count / total) : "–");
    });
    say(this.total, number(total));
    const texts = this.parts.map((part, i) => `${part.name} ${counts[i]}`);
    this.svg.setAttribute("aria-label", `${this.title}: ${texts.join(", ")}`);
  }
}

/** A vector as a line around its zero. */
export function sparkline(value) {
  const points = value.points.map((point) => point ?? 0);
  const reach = Math.max(1e-9, ...points.map(Math.abs));
  const d = points.map((point, i) => `${i ? "L" : "M"}${i} ${(12 - (point / reach) * 11).toFixed(2)}`).join("");
  return s(
    "svg",
    { class: "spark", viewBox: `0 0 ${Math.max(1, points.length - 1)} 24`, preserveAspectRatio: "none", role: "img", "aria-label": `${value.name}: ${value.length} numbers, norm ${value.norm}` },
    s("line", { class: "grid", x1: 0, x2: points.length, y1: 12, y2: 12 }),
    s("path", { class: "line one", d }),
  );
}

export function histogram(value) {
  const top = Math.max(...value.bins);
  const bars = value.bins.map((count, i) =>
    s("rect", { x: i + 0.06, width: 0.88, y: 40 - (count / top) * 40, height: (count / top) * 40 }),
  );
  const label = `${value.length} values from ${value.low} to ${value.high}, median ${value.median}; most, ${top}, near ${(value.low + ((value.bins.indexOf(top) + 0.5) * (value.high - value.low)) / value.bins.length).toPrecision(3)}`;
  return h(
    "div",
    { class: "histogram" },
    s("svg", { viewBox: `0 0 ${value.bins.length} 40`, preserveAspectRatio: "none", role: "img", "aria-label": label }, bars),
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", { text: number(value.low) }), h("span", { text: `median ${number(value.median)}` }), h("span", { text: number(value.high) })),
  );
}

/** Median, 95th percentile and longest of one step, on the scale of `longest`. */
export function rangeBar() {
  const parts = [s("rect", { class: "pale", y: 2, height: 6 }), s("rect", { class: "solid", y: 2, height: 6 }), s("rect", { class: "mark", y: 0, height: 10, width: 0.6 })];
  const svg = s("svg", { class: "range", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, parts);
  svg.update = (step, longest) => {
    const at = (value) => Math.max(0.6, (value / longest) * 99.4);
    parts[0].setAttribute("width", at(step.p95));
    parts[1].setAttribute("width", at(step.p50));
    parts[2].setAttribute("x", at(step.max) - 0.6);
  };
  return svg;
}
