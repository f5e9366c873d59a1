// Lists of runs: what runs and waits now, and what ended lately.

import { h, say, sync } from "./dom.js";
import { ago, seconds, STATUS } from "./format.js";
import { miniTimeline } from "./timeline.js";

export function hashOf(namespace, key) {
  return `#/run/${encodeURIComponent(namespace)}/${encodeURIComponent(key)}`;
}

function make(run) {
  const parts = {
    dot: h("span", { class: "dot", "aria-hidden": "true" }),
    key: h("bdi", { class: "key" }),
    status: h("span", { class: "status" }),
    pipeline: h("span", { class: "pipeline" }),
    mini: miniTimeline(),
    took: h("span", { class: "took" }),
    when: h("span", { class: "when" }),
    error: h("span", { class: "error" }),
  };
  const link = h(
    "a",
    { class: "run", href: hashOf(run.namespace, run.key) },
    parts.dot,
    h("span", { class: "who" }, parts.key, h("span", { class: "sub" }, parts.status, parts.pipeline, parts.error)),
    parts.mini,
    h("span", { class: "times" }, parts.took, parts.when),
  );
  const item = h("li", {}, link);
  item.parts = parts;
  return item;
}

function update(nowUs, manyNamespaces) {
  return (item, run) => {
    const { parts } = item;
    const live = !run.completed_us;
    item.dataset.status = run.status;
    parts.dot.setAttribute("class", `dot ${run.status}`);
    say(parts.key, manyNamespaces && run.namespace !== "default" ? `${run.namespace}/${run.key}` : run.key);
    const again = run.attempt > 1 ? `, ${run.attempt}. attempt` : "";
    say(parts.status, `${STATUS[run.status] ?? run.status}${again}`);
    say(parts.pipeline, run.pipeline);
    say(parts.error, failureOf(run) || waitOf(run));
    parts.mini.update(run, nowUs);
    const from = run.created_us;
    say(parts.took, seconds(((run.completed_us || nowUs) - from) / 1e6));
    say(parts.when, live ? progress(run) : ago((nowUs - run.completed_us) / 1e6));
  };
}

function progress(run) {
  if (run.status === "pending") return "in the queue";
  const done = run.steps.filter((step) => !["pending", "running"].includes(step.state)).length;
  return run.steps.length ? `${done} of ${run.steps.length} steps` : "";
}

function failureOf(run) {
  if (run.error) return run.error;
  const failed = run.steps.find((step) => step.state === "failed");
  return failed ? `${failed.name}: ${failed.error}` : "";
}

/** Why no worker takes the run, or a step of another pool. */
function waitOf(run) {
  const step = run.steps.find((each) => each.waits);
  return run.waits || (step ? `${step.name}: ${step.waits}` : "");
}

/** Show a list of runs in place of the former one. */
export function showRuns(list, runs, nowUs, manyNamespaces) {
  sync(list, runs, (run) => JSON.stringify([run.namespace, run.key]), make, update(nowUs, manyNamespaces));
}
