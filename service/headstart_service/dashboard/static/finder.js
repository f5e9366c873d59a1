// Filters the lists of runs by text, pipeline and status; the server filters by namespace.

import { byId, h, say, show, sync } from "./dom.js";
import { STATUS } from "./format.js";

export class Finder {
  /** `changed` is called when a filter changes. */
  constructor(changed) {
    this.text = byId("find-text");
    this.pipeline = byId("find-pipeline");
    this.status = byId("find-status");
    this.status.append(...Object.entries(STATUS).map(([value, text]) => h("option", { value, text })));
    byId("find").addEventListener("input", changed);
    byId("find").addEventListener("submit", (event) => event.preventDefault());
    byId("find").addEventListener("reset", () => {
      this.text.focus();
      setTimeout(changed); // the fields are empty after this event
    });
  }

  get active() {
    return Boolean(this.text.value.trim() || this.pipeline.value || this.status.value);
  }

  /** Offer the pipelines of `runs`, and the chosen one for as long as it is chosen. */
  offer(runs) {
    const names = [...new Set(["", ...runs.map((run) => run.pipeline), this.pipeline.value])].sort();
    sync(this.pipeline, names, (name) => name, (name) => h("option", { value: name, text: name || "all" }), () => {});
    show(byId("find"), runs.length > 0 || this.active);
  }

  /** Return the runs that match every filter. */
  pick(runs) {
    const words = this.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return runs.filter((run) => {
      if (this.pipeline.value && run.pipeline !== this.pipeline.value) return false;
      if (this.status.value && run.status !== this.status.value) return false;
      const errors = run.steps.map((step) => step.error ?? "");
      const text = [`${run.namespace}/${run.key}`, run.pipeline, run.error ?? "", ...errors].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }

  /** Say how many runs match, while a filter is set. */
  report(found, all) {
    show(byId("find-clear"), this.active);
    say(byId("find-found"), this.active ? `${found} of ${all} listed runs match.` : "");
  }
}
