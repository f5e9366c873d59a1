// The empty page: commands that start a first run and read it.

import { byId, say, show } from "./dom.js";

const AFTER = ["headstart get first --wait 20", "headstart stats"];
const FACTORS = `headstart start first --pipeline factors --inputs '{"number": 7400840699802997}'`;

byId("first-copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("first-command").textContent);
  say(byId("first-copy"), "Copied");
});

/** Show the commands that suit the pipelines of the workers, if `visible`. */
export function showFirst(told, visible) {
  show(byId("first"), visible);
  if (!visible) return;
  show(byId("first-copy"), window.isSecureContext);
  const has = (name) => (told.process?.pipelines ?? []).includes(name);
  if (has("factors")) {
    say(byId("first-note"), "This pipeline computes for some five seconds. Started ahead, its result is ready when it is asked for, and the last line shows the time that was saved:");
    say(byId("first-command"), [". .venv/bin/activate", FACTORS, "sleep 8  # the user is busy", ...AFTER].join("\n"));
  } else if (has("bridging")) {
    say(byId("first-note"), "Nothing has been started yet. These lines start a word game and read it:");
    say(byId("first-command"), ["headstart start first ocean forest", ...AFTER].join("\n"));
  } else {
    say(byId("first-note"), "Nothing has been started yet. These lines list the pipelines and show how to start a run:");
    say(byId("first-command"), "headstart pipelines\nheadstart start --help");
  }
}
