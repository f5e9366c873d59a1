// What the work was good for: the ledger's sums.

import { byId, h, s, say, show, sync } from "./dom.js";
import { number, percent, seconds } from "./format.js";

/** What may become of a run, in this order: how it is called, and its colour. */
const FATES = [
  ["used_ready", "used, ready", "ok"],
  ["used_waited", "used after a wait", "one"],
  ["expired", "unused, expired", "warn"],
  ["evicted", "unused, evicted", "warn"],
  ["replaced", "replaced", "idle"],
  ["cancelled", "cancelled", "idle"],
  ["failed", "failed", "bad"],
  ["open", "not known yet", "idle"],
];

/** Show `told.ledger`, which is null where the ledger knows of nothing. */
export function showSaved(told) {
  const ledger = told.ledger;
  show(byId("saved"), ledger !== null);
  show(byId("saved-none"), ledger === null);
  if (ledger === null) {
    say(byId("saved-none"), told.namespaces === null ? "Nothing was started yet." : "The ledger knows of no start here.");
    return;
  }
  show(byId("saved-time"), ledger.hidden !== null);
  say(byId("saved-hidden"), ledger.hidden ? seconds(ledger.hidden) : "0 s");
  say(byId("saved-unread"), ledger.unread === null ? "No result was read yet." : `${percent(ledger.unread)} of the work was never read`);
  const runs = { ...ledger.runs, open: ledger.open };
  const fates = FATES.map(([name, text, kind]) => ({ name, text, kind, runs: runs[name] ?? 0 }));
  const met = fates.filter((fate) => fate.runs > 0);
  sync(byId("fates"), met, (fate) => fate.name, make, (item, fate) => {
    const share = ledger.starts ? Math.min(1, fate.runs / ledger.starts) : 0;
    say(item.parts.value, `${number(fate.runs)} · ${percent(share)}`);
    item.parts.bar.setAttribute("width", Math.max(0.6, share * 100));
  });
  const since = new Date(ledger.since_us / 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  say(byId("saved-more"), `of ${number(ledger.starts)} runs since ${since}; ${number(ledger.joined)} more starts joined one, ${number(ledger.reused)} found a result`);
}

function make(fate) {
  const bar = s("rect", { class: fate.kind, y: 1, height: 8 });
  const value = h("span", { class: "value" });
  const drawing = s("svg", { class: "range", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, bar);
  return Object.assign(h("li", {}, h("span", { text: fate.text }), value, drawing), { parts: { bar, value } });
}
