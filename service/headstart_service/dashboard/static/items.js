// The items of a step that runs once for each of a list: how many there are of each state, and why some failed.

import { h, s } from "./dom.js";
import { number } from "./format.js";

const STATES = ["completed", "failed", "running", "waiting"];
const WIDTH = 1000;

/** A step's items; `failed` are the first that failed, `inWords` names a failure reason. */
export function itemsOf(step, failed, inWords) {
  const { total, completed, running } = step.items;
  const ended = step.state !== "running";
  // A step that ended has no item that runs or waits, whatever it reported last.
  const waiting = ended ? 0 : Math.max(0, total - completed - step.items.failed - running);
  const counts = { completed, failed: step.items.failed, running: ended ? 0 : running, waiting };
  const shown = STATES.filter((state) => counts[state]);
  const text = [`${number(total)} ${total === 1 ? "item" : "items"}`, ...shown.map((state) => `${number(counts[state])} ${state}`)].join(", ");
  const more = counts.failed - failed.length;
  return h(
    "section",
    { class: "items", "aria-label": `Items of ${step.name}` },
    h("h3", { text: `Items of ${step.name}` }),
    bar(counts, shown, total),
    h("p", { class: "small", text }),
    failed.length > 0 &&
      h(
        "ol",
        { class: "errors" },
        failed.map((item) => h("li", {}, h("b", { text: `item ${item.index}` }), ` ${inWords(item.failure_reason)}: `, h("bdi", { text: item.error }))),
      ),
    more > 0 && h("p", { class: "muted small", text: failed.length ? `and ${number(more)} more that failed` : `${number(more)} failed: their reasons are in the step's value` }),
  );
}

function bar(counts, shown, total) {
  let x = 0;
  const shapes = shown.map((state) => {
    const width = (counts[state] / total) * WIDTH;
    const shape = s("rect", { class: state, x, y: 0, width, height: 8 });
    x += width;
    return shape;
  });
  return s("svg", { class: "range", viewBox: `0 0 ${WIDTH} 8`, preserveAspectRatio: "none", "aria-hidden": "true" }, shapes);
}
