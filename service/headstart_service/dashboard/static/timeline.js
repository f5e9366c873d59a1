// A run's steps over time: when each began, how long it took, and for whom it waited.

import { h, s } from "./dom.js";
import { seconds } from "./format.js";

/** Where everything is, in seconds since the run was started by its caller. */
export function layout(run, nowUs) {
  const start = run.created_us;
  const at = (us) => Math.max(0, (us - start) / 1e6);
  const end = run.completed_us || nowUs;
  const taken = run.started_us ? at(run.started_us) : at(end);
  const bars = run.steps.map((step) => {
    const begun = step.started_us && !step.kept;
    const from = begun ? at(step.started_us) : null;
    const running = step.state === "running";
    const to = begun ? (running ? at(nowUs) : from + (step.elapsed ?? 0)) : null;
    return { ...step, from, to };
  });
  const total = Math.max(at(end), ...bars.map((bar) => bar.to ?? 0), 1e-6);
  // Only a run that has begun, or waits still, has a queue to show.
  return { bars, queued: taken, total };
}

/** The timeline in one row, for lists. */
export function miniTimeline() {
  const svg = s("svg", { class: "mini", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.update = (run, nowUs) => {
    const { bars, queued, total } = layout(run, nowUs);
    const rows = Math.max(1, bars.length);
    svg.setAttribute("viewBox", `0 0 100 ${rows * 4}`);
    const x = (value) => (value / total) * 100;
    const shapes = [s("rect", { class: "queue", x: 0, y: 0, width: x(queued), height: rows * 4 })];
    bars.forEach((bar, row) => {
      if (bar.from === null) return;
      const width = Math.max(0.8, x(bar.to) - x(bar.from));
      shapes.push(s("rect", { class: `bar ${bar.state}`, x: Math.min(99.2, x(bar.from)), y: row * 4 + 0.5, width, height: 3 }));
    });
    svg.replaceChildren(...shapes);
  };
  return svg;
}

const ROW = 28;
const BAR = 14;
const WIDTH = 1000;

/** The whole timeline: a row for each step, its need's end joined to its own start. */
export function timeline(run, nowUs) {
  const { bars, queued, total } = layout(run, nowUs);
  const height = bars.length * ROW;
  const x = (value) => (value / total) * WIDTH;
  const rowOf = new Map(bars.map((bar, row) => [bar.name, row]));
  const shapes = ticks(total).map((tick) => s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height }));
  if (queued > 0) shapes.push(s("rect", { class: "queue", x: 0, y: 0, width: x(queued), height }));
  bars.forEach((bar, row) => {
    if (bar.from === null) return;
    for (const need of bar.needs) {
      const from = bars[rowOf.get(need)];
      if (!from || from.to === null) continue;
      const y1 = rowOf.get(need) * ROW + ROW / 2;
      const y2 = row * ROW + ROW / 2;
      shapes.push(s("path", { class: "need", d: `M${x(from.to)} ${y1}V${y2}H${Math.max(x(bar.from), x(from.to))}` }));
    }
  });
  bars.forEach((bar, row) => {
    if (bar.from === null) return;
    const width = Math.max(4, x(bar.to) - x(bar.from));
    const y = row * ROW + (ROW - BAR) / 2;
    shapes.push(s("rect", { class: `bar ${bar.state}`, x: Math.min(x(bar.from), WIDTH - 4), y, width, height: BAR }));
  });
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${Math.max(ROW, height)}`, preserveAspectRatio: "none", "aria-hidden": "true" }, shapes);
  svg.setAttribute("height", Math.max(ROW, height));
  const labels = bars.map((bar) =>
    h(
      "li",
      {},
      h("span", { class: `dot ${bar.state}`, "aria-hidden": "true" }),
      h("span", { class: "step", title: bar.needs.length ? `needs ${bar.needs.join(", ")}` : "needs nothing" }, bar.name),
      bar.required && h("span", { class: "tag", text: "required" }),
      bar.pool && bar.pool !== "default" && h("span", { class: "tag pool", text: `pool ${bar.pool}` }),
      h("span", { class: "took" }, tookText(bar, run)),
      h("span", { class: "hidden", text: waitText(bar) }),
    ),
  );
  const axis = h(
    "div",
    { class: "axis", "aria-hidden": "true" },
    h("span", { text: "0" }),
    h("span", { text: seconds(total / 2) }),
    h("span", { text: seconds(total) }),
  );
  return h(
    "div",
    { class: "timeline" },
    h("ol", { class: "labels" }, labels),
    h("div", { class: "tracks" }, svg, axis),
  );
}

function tookText(bar) {
  const tries = bar.attempts > 1 ? ` in ${bar.attempts} tries` : "";
  if (bar.kept) return "kept from before";
  if (bar.memoised) return "memoised";
  const items = bar.items ? `, ${bar.items.completed + bar.items.failed} of ${bar.items.total} items` : "";
  if (bar.state === "running") return `running ${seconds(bar.to === null ? 0 : bar.to - bar.from)}${items}`;
  if (bar.state === "pending") return "waits";
  if (bar.state === "skipped") return "skipped";
  if (bar.state === "completed" && bar.items?.failed) return `${seconds(bar.elapsed)}, ${bar.items.failed} of ${bar.items.total} items failed`;
  if (bar.state === "failed") return `failed after ${seconds(bar.elapsed)}${tries}`;
  return `${seconds(bar.elapsed)}${tries}`;
}

function waitText(bar) {
  const needs = bar.needs.length ? `, needs ${bar.needs.join(" and ")}` : "";
  const began = bar.from === null ? "" : `, began ${seconds(bar.from)} after the start`;
  return `${bar.state}${began}${needs}`;
}

function ticks(total) {
  return [0, 0.25, 0.5, 0.75, 1].map((share) => share * total);
}
