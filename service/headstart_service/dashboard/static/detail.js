// One run in full: its timeline, its values summarised, and the button that ends it.

import { histogram, sparkline } from "./charts.js";
import { byId, h, sync } from "./dom.js";
import { bytes, clock, number, seconds, STATUS } from "./format.js";
import { itemsOf } from "./items.js";
import { timeline } from "./timeline.js";

export class Detail {
  /** `ask(path, options)` fetches with the viewer's token; `nowUs()` is the server's time. */
  constructor(ask, nowUs) {
    this.ask = ask;
    this.nowUs = nowUs;
    this.dialog = byId("detail");
    this.open = null;
    this.dialog.addEventListener("close", () => {
      this.open = null;
      this.seen = null;
      if (location.hash) history.replaceState(null, "", location.pathname + location.search);
      this.cameFrom?.focus?.();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  /** Follow the address: #/run/<namespace>/<key>. */
  async follow() {
    const [, kind, namespace, key] = location.hash.split("/");
    if (kind !== "run" || key === undefined) {
      if (this.dialog.open) this.dialog.close();
      return;
    }
    try {
      this.open = { namespace: decodeURIComponent(namespace), key: decodeURIComponent(key) };
    } catch {
      return;
    }
    this.cameFrom = document.activeElement;
    this.seen = null;
    this.values = h("div", { class: "values" });
    this.dialog.replaceChildren(this.head({ ...this.open, status: "" }), h("p", { class: "muted", text: "Looking …" }));
    if (!this.dialog.open) this.dialog.showModal();
    await this.refresh();
  }

  /** Look again if there is something new to see. */
  async tick() {
    if (!this.open) return;
    const ended = this.seen && this.seen.run.completed_us;
    if (ended) this.countDown();
    if (!ended || (this.ticks = (this.ticks ?? 0) + 1) % 5 === 0) await this.refresh();
  }

  async refresh() {
    const asked = this.open;
    if (!asked || this.busy) return;
    this.busy = true;
    try {
      const answer = await this.ask(`api/run?${new URLSearchParams(asked)}`);
      const told = await answer.json();
      if (this.open !== asked) return;
      if (!answer.ok) this.missing(told.error);
      else if (JSON.stringify(told.run) !== JSON.stringify(this.seen?.run) || !told.run.completed_us) this.show(told);
    } catch {
      if (this.open === asked && !this.seen) this.missing("the server does not answer");
    } finally {
      this.busy = false;
      if (this.open && this.open !== asked) this.refresh();
    }
  }

  missing(reason) {
    if (this.seen) {
      this.expiry?.replaceChildren("no longer kept");
      return;
    }
    this.dialog.replaceChildren(this.head({ ...this.open, status: "" }), h("p", { class: "bad", text: reason ?? "not found" }));
  }

  head(run) {
    return h(
      "header",
      {},
      h("h2", { id: "detail-title", tabindex: "-1" }, h("bdi", { text: run.key })),
      run.status && h("span", { class: `badge ${run.status}`, text: STATUS[run.status] }),
      this.cancel,
      h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => this.dialog.close() }, "✕"),
    );
  }

  show(told) {
    const within = this.dialog.contains(document.activeElement);
    const focused = within ? document.activeElement.getAttribute("aria-label") : null;
    this.seen = told;
    const { run } = told;
    this.cancel = told.may_cancel ? h("button", { type: "button", class: "danger", "aria-label": "Cancel this run", onclick: () => this.end() }, "Cancel run") : null;
    this.expiry = h("dd");
    const facts = [
      ["Namespace", run.namespace],
      ["Pipeline", run.pipeline],
      ["Revision", String(run.revision)],
      ["Attempt", run.attempt ? String(run.attempt) : "none yet"],
      ["Worker", run.worker || (run.completed_us ? "none: it has ended" : "none yet")],
      ["Started", clock(run.created_us)],
      ["In the queue", run.started_us ? seconds((run.started_us - run.created_us) / 1e6) : "still"],
      ["Took", run.completed_us ? seconds((run.completed_us - run.created_us) / 1e6) : "still runs"],
    ];
    if (run.pool && run.pool !== "default") facts.splice(2, 0, ["Pool", run.pool]);
    if (run.failure_reason) facts.push(["Reason", inWords(run.failure_reason)]);
    const errors = run.steps.filter((step) => step.error);
    const going = run.steps.filter((step) => step.progress);
    const waits = [run.waits, ...run.steps.map((step) => step.waits && `${step.name}: ${step.waits}`)].filter(Boolean);
    const listed = run.steps.filter((step) => step.items);
    const above = [
      this.head(run),
      h(
        "dl",
        { class: "facts" },
        facts.map(([name, value]) => h("div", {}, h("dt", { text: name }), h("dd", {}, h("bdi", { text: value })))),
        h("div", {}, h("dt", { text: "Expires" }), this.expiry),
      ),
      run.error && h("p", { class: "notice bad" }, run.error),
      waits.length && h("p", { class: "notice waits" }, waits.map((text) => `Waits: ${text}`).join("\n")),
      h("h3", { text: "Steps" }),
      timeline(run, this.nowUs()),
      going.length && h("ul", { class: "going" }, going.map(progress)),
      errors.length && h("ul", { class: "errors" }, errors.map((step) => h("li", {}, h("b", { text: step.name }), ` ${inWords(step.failure_reason)}: ${step.error}`))),
      ...listed.map((step) => itemsOf(step, told.failed_items[step.name] ?? [], inWords)),
      h("h3", { text: "Values" }),
      !told.values.length && h("p", { class: "muted", text: "None yet." }),
    ];
    // The values stay the same elements: what is read, scrolled or selected there is not lost.
    for (const child of [...this.dialog.children]) if (child !== this.values) child.remove();
    this.dialog.prepend(...above.filter(Boolean));
    if (!this.values.parentNode) this.dialog.append(this.values);
    showValues(this.values, told.values);
    this.countDown();
    if (!within) return;
    // What had the focus is another element now, or gone.
    const same = focused && this.dialog.querySelector(`[aria-label="${CSS.escape(focused)}"]`);
    (same || byId("detail-title")).focus({ preventScroll: true });
  }

  countDown() {
    const { run } = this.seen;
    const left = (run.expires_us - this.nowUs()) / 1e6;
    const text = !run.completed_us ? "not while it runs" : left > 0 ? `in ${seconds(Math.floor(left) + 0.001).replace(/\.\d+ s$/, " s")}` : "expired";
    if (this.expiry.textContent !== text) this.expiry.textContent = text;
  }

  async end() {
    this.cancel.disabled = true;
    const answer = await this.ask("api/cancel", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Headstart": "1" },
      body: JSON.stringify({ ...this.open, revision: this.seen.run.revision }),
    }).catch(() => null);
    if (!answer?.ok) this.cancel.textContent = "Could not cancel";
    this.refresh();
  }
}

/** How far a running step has come. */
function progress(step) {
  const { fraction, message } = step.progress;
  const bar = fraction === null ? null : h("progress", { max: "1", value: String(fraction), "aria-label": step.name });
  return h("li", {}, h("b", { text: step.name }), bar, h("bdi", { text: ` ${message}` }));
}

function showValues(list, values) {
  const times = new Map(); // words may occur twice
  for (const told of values) {
    const name = `${told.step} ${told.kind} ${told.name}`;
    times.set(name, (times.get(name) ?? 0) + 1);
    told.id = `${name} ${times.get(name)}`;
  }
  sync(list, values, (told) => told.id, () => h("div"), showValue);
}

/** Show what is new of a value. Text that grows is followed while its end is in view. */
function showValue(row, told) {
  const text = JSON.stringify(told);
  if (row.told === text) return;
  row.told = text;
  const old = told.kind === "growing" && row.querySelector("pre");
  const follows = !old || old.scrollHeight - old.scrollTop - old.clientHeight < 24;
  row.className = `value-row ${told.kind}`;
  const about = h("span", { class: "muted small" }, describe(told));
  if (old) {
    row.querySelector(".value-name .small").replaceWith(about);
    grow(old, told.text);
  } else row.replaceChildren(h("div", { class: "value-name" }, h("b", {}, h("bdi", { text: told.name })), about), picture(told));
  if (told.kind === "growing" && follows) {
    const shown = row.querySelector("pre");
    // A new row is not laid out before it is in the page.
    requestAnimationFrame(() => (shown.scrollTop = shown.scrollHeight));
  }
}

/** Add what is new at the end, so that a selection stays; anything else replaces the text. */
function grow(pre, text) {
  const shown = pre.textContent;
  if (text.startsWith(shown)) pre.append(text.slice(shown.length));
  else pre.textContent = text;
}

function describe(told) {
  switch (told.kind) {
    case "vector":
      return `${told.shape ?? number(told.length)} numbers, norm ${number(told.norm)}`;
    case "histogram":
      return `${number(told.length)} values`;
    case "words":
      return `${told.count} words`;
    case "json":
      return told.clipped ? "JSON, its beginning" : "JSON";
    case "growing":
      return (told.failed ? "before it failed" : "so far") + (told.clipped ? ", its end" : "");
    default:
      return bytes(told.length);
  }
}

function picture(told) {
  switch (told.kind) {
    case "vector":
      return sparkline(told);
    case "histogram":
      return histogram(told);
    case "words":
      return h("ul", { class: "chips" }, told.words.map((word) => h("li", {}, h("bdi", { text: word }))));
    case "json":
      return h("pre", { tabindex: "0", role: "region", "aria-label": `JSON of ${told.name}`, text: told.text });
    case "growing":
      return h("pre", { tabindex: "0", role: "region", "aria-label": `What ${told.name} has given`, text: told.text });
    case "bytes":
      return h("pre", { text: told.head });
    default:
      return h("p", { class: "muted", text: "too large to show here" });
  }
}

function inWords(reason) {
  return reason ? reason.replaceAll("_", " ") : "failed";
}
