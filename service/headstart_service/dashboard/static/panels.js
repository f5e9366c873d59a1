// Everything of the board but the runs: totals, charts, steps, workers, failures.

import { LineChart, rangeBar, SECONDS, ShareChart } from "./charts.js";
import { byId, h, say, show, sync } from "./dom.js";
import { ago, micros, number, seconds } from "./format.js";
import { hashOf } from "./runs.js";

const OUTCOMES = [
  { name: "ready", class: "ok" },
  { name: "waited", class: "one" },
  { name: "partial", class: "warn" },
  { name: "missing", class: "bad" },
];

const charts = {
  flow: new LineChart("Runs a second", [{ name: "started", class: "one" }, { name: "ended", class: "two" }]),
  reads: new LineChart("Results a second", [{ name: "results", class: "one" }]),
  latency: new LineChart("Time to a ready result", [{ name: "median", class: "one" }, { name: "99th", class: "warn" }], micros),
  queue: new LineChart("Runs in the queue", [{ name: "queued", class: "two" }]),
  shares: new ShareChart("Results of three minutes", OUTCOMES),
};

/** The tiles: names in order; which of them only who sees the whole process sees. */
const TILES = [
  ["running", "Running"],
  ["queued", "Queued"],
  ["kept", "Kept"],
  ["starts", "Starts / s"],
  ["ends", "Ends / s"],
  ["reads", "Results / s", true],
  ["refused", "Refused / s", true],
];
const tiles = new Map();

export function build() {
  for (const [name, text] of TILES) {
    const title = h("dt", { text });
    const value = h("dd");
    const tile = h("div", { class: "tile card" }, title, value);
    tiles.set(name, { tile, title, value });
    byId("totals").append(tile);
  }
  byId("charts").append(...Object.values(charts).map((chart) => chart.element));
}

export function showTotals(told, past) {
  const recent = past.slice(-5);
  const rate = (of) => (recent.length ? recent.reduce((sum, each) => sum + of(each), 0) / recent.length : 0);
  const counts = told.counts ?? {};
  const values = {
    running: counts.in_progress ?? 0,
    queued: told.queued,
    kept: Object.values(counts).reduce((sum, count) => sum + count, 0),
    starts: rate((each) => each.starts ?? 0),
    ends: rate((each) => each.ends ?? 0),
    reads: rate((each) => sum(each.outcomes ?? [])),
    refused: rate((each) => each.refused ?? 0),
  };
  for (const [name, , whole] of TILES) {
    const { tile, title, value } = tiles.get(name);
    show(tile, !whole || told.whole);
    const shown = values[name];
    const text = told.store === "away" && ["running", "queued", "kept"].includes(name) ? "–" : number(shown >= 10 ? Math.round(shown) : Math.round(shown * 10) / 10);
    say(value, text);
    if (name === "kept" && told.process) say(title, `Kept, of ${number(told.process.max_cached)}`);
  }
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

export function showCharts(told, past) {
  const seen = past.slice(-SECONDS);
  charts.flow.update([seen.map((each) => each.starts), seen.map((each) => each.ends)]);
  for (const name of ["reads", "latency", "queue", "shares"]) show(charts[name].element, told.whole);
  if (!told.whole) return;
  charts.reads.update([seen.map((each) => sum(each.outcomes))]);
  charts.latency.update([seen.map((each) => each.p50), seen.map((each) => each.p99)]);
  charts.queue.update([seen.map((each) => each.queued)]);
  charts.shares.update(OUTCOMES.map((_, i) => sum(seen.map((each) => each.outcomes[i]))));
}

export function showSteps(steps) {
  const pipelines = [...new Set(steps.map((step) => step.pipeline))].map((name) => ({
    name,
    steps: steps.filter((step) => step.pipeline === name),
  }));
  show(byId("steps-none"), !steps.length);
  show(byId("steps-legend"), steps.length > 0);
  sync(byId("steps"), pipelines, (pipeline) => pipeline.name, makePipeline, updatePipeline);
}

function makePipeline(pipeline) {
  const list = h("ul", { class: "steps" });
  const group = h("div", {}, h("h3", { text: pipeline.name }), list);
  group.list = list;
  return group;
}

function updatePipeline(group, pipeline) {
  const longest = Math.max(1e-6, ...pipeline.steps.map((step) => step.max));
  sync(group.list, pipeline.steps, (step) => step.step, makeStep, (item, step) => {
    const { parts } = item;
    parts.bar.update(step, longest);
    say(parts.value, seconds(step.p50));
    say(parts.more, `${step.count} times, median ${seconds(step.p50)}, 95th percentile ${seconds(step.p95)}, longest ${seconds(step.max)}${step.failed ? `, ${step.failed} failed` : ""}`);
    item.title = parts.more.textContent;
    say(parts.failed, step.failed ? `${step.failed} failed` : "");
  });
}

function makeStep(step) {
  const parts = { bar: rangeBar(), value: h("span", { class: "value", "aria-hidden": "true" }), failed: h("span", { class: "bad small", "aria-hidden": "true" }), more: h("span", { class: "hidden" }) };
  const item = h("li", {}, h("span", { class: "step" }, step.step, " ", parts.failed), parts.value, parts.bar, parts.more);
  return Object.assign(item, { parts });
}

export function showWorkers(told) {
  const workers = told.workers ?? [];
  say(byId("workers-count"), workers.length ? String(workers.length) : "");
  say(byId("workers-none"), told.whole ? "No worker reports: what is started waits." : "Only a token with admin sees the workers.");
  show(byId("workers-none"), !workers.length);
  showPools(told.pools ?? []);
  sync(byId("workers"), workers, (worker) => worker.name, makeWorker, (item, worker) => {
    const { parts } = item;
    say(parts.load, `${worker.busy} of ${worker.slots}`);
    parts.meter.max = worker.slots;
    parts.meter.value = worker.busy;
    say(parts.about, `${worker.version} · up ${seconds((told.now_us - worker.started_us) / 1e6)} · ${worker.pipelines.join(", ")}${named(worker.pools)}`);
  });
}

/** What each pool has to do, unless there is the default one alone. */
function showPools(pools) {
  show(byId("pools"), pools.some((pool) => pool.name !== "default"));
  sync(byId("pools"), pools, (pool) => pool.name, () => h("li", {}, h("bdi", { class: "mono" }), h("span", { class: "value" }), h("span", { class: "small" })), (item, pool) => {
    const [name, workers, about] = item.children;
    say(name, pool.name);
    say(workers, `${number(pool.workers)} ${pool.workers === 1 ? "worker" : "workers"}`);
    const waits = pool.queued ? ` for up to ${seconds(pool.oldest_wait)}` : "";
    say(about, `${number(pool.queued)} queued${waits}, ${number(pool.running)} running`);
    about.classList.toggle("bad", pool.queued > 0 && !pool.workers);
  });
}

/** The pools, unless it is the default one alone. */
function named(pools = []) {
  return pools.join() === "default" || !pools.length ? "" : ` · pool ${pools.join(", ")}`;
}

function makeWorker(worker) {
  const parts = { load: h("span", { class: "value" }), meter: h("progress", { "aria-label": `Load of ${worker.name}` }), about: h("span", { class: "muted small" }) };
  return Object.assign(h("li", {}, h("bdi", { class: "mono", text: worker.name }), parts.load, parts.meter, parts.about), { parts });
}

export function showFailures(told) {
  show(byId("failures-none"), !told.failures.length);
  sync(byId("failures"), told.failures, (group) => JSON.stringify([group.pipeline, group.reason]), makeFailure, (item, group) => {
    const { parts } = item;
    say(parts.count, number(group.count));
    say(parts.about, `${group.pipeline} · ${ago((told.now_us - group.last_us) / 1e6)} ·`);
    sync(parts.keys, group.keys, (key) => JSON.stringify(key), ([namespace, key]) => h("a", { href: hashOf(namespace, key) }, h("bdi", { text: key })), () => {});
  });
}

function makeFailure(group) {
  const parts = { count: h("b", { class: "value" }), about: h("span"), keys: h("span", { class: "keys" }) };
  return Object.assign(
    h("li", {}, parts.count, h("span", { class: "reason" }, group.reason), h("span", { class: "muted small" }, parts.about, " ", parts.keys)),
    { parts },
  );
}
