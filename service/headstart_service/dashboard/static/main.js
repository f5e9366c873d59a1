// Puts the page together: the token and namespace, the server's events, the parts that show them.

import { SECONDS } from "./charts.js";
import { Detail } from "./detail.js";
import { byId, say, show } from "./dom.js";
import { Feed } from "./feed.js";
import { Finder } from "./finder.js";
import { showFirst } from "./first.js";
import { seconds } from "./format.js";
import { build, showCharts, showFailures, showSteps, showTotals, showWorkers } from "./panels.js";
import { showRuns } from "./runs.js";
import { showSaved } from "./saved.js";

const TOKEN = "headstart-token"; // in sessionStorage: gone with the tab
const THEME = "headstart-theme";
const THEMES = ["auto", "light", "dark"];

const state = { token: sessionStorage.getItem(TOKEN) ?? "", namespace: new URLSearchParams(location.search).get("namespace") ?? "", past: [], aheadUs: 0 };

const nowUs = () => Date.now() * 1000 + state.aheadUs;
const headers = () => (state.token ? { Authorization: `Bearer ${state.token}` } : {});
const ask = (path, options = {}) => fetch(path, { cache: "no-store", ...options, headers: { ...headers(), ...options.headers } });
const detail = new Detail(ask, nowUs);
let latest = null; // the event that brought the lists of runs
const finder = new Finder(() => latest && drawRuns());

const feed = new Feed({
  tick(told) {
    state.aheadUs = told.now_us - Date.now() * 1000;
    if (told.history) state.past = told.history;
    if (told.second && told.second.at !== state.past.at(-1)?.at) state.past.push(told.second);
    state.past.splice(0, state.past.length - SECONDS);
    show(byId("login"), false);
    show(byId("board"), true);
    draw(told);
  },
  state(name, text) {
    byId("link").dataset.state = name;
    say(byId("link"), text);
    byId("board").classList.toggle("stale", name === "lost");
  },
  denied(code, text) {
    byId("link").dataset.state = "lost";
    if (code === 401) {
      say(byId("link"), "A token is needed");
      show(byId("board"), false);
      show(byId("login"), true);
      say(byId("login-said"), state.token ? text : "");
      sessionStorage.removeItem(TOKEN);
      state.token = "";
      byId("login-namespace").value = state.namespace;
      byId("token").focus();
    } else {
      // The token is good, if there is one: it may be the namespace that it lacks.
      say(byId("link"), "Refused");
      show(byId("login"), false);
      show(byId("board"), false);
      show(byId("leave"), Boolean(state.token));
      notice(text);
    }
  },
});

function notice(text) {
  say(byId("notice"), text);
  show(byId("notice"), Boolean(text));
}

function draw(told) {
  const away = told.store === "away" ? ["The store does not answer: what is shown may be out of date."] : [];
  notice([...away, ...(told.problems ?? []).map((each) => `${each.found} → ${each.advice}`)].join("\n"));
  if (told.process) {
    const up = seconds((told.now_us - told.process.started_us) / 1e6);
    say(byId("about"), `${told.process.host} · ${told.process.version} · up ${up}`);
  } else say(byId("about"), (told.namespaces ?? []).join(", "));
  show(byId("leave"), Boolean(state.token));
  showTotals(told, state.past);
  showCharts(told, state.past);
  if (told.live) {
    latest = told;
    drawRuns();
  }
  if (told.ledger !== undefined) showSaved(told);
  showSteps(told.steps);
  showWorkers(told);
  showFailures(told);
  detail.tick();
}

/** Show the runs of the latest event that the filters let through. */
function drawRuns() {
  const told = latest;
  const many = told.namespaces === null || told.namespaces.length > 1;
  const any = told.live.length + told.recent.length > 0;
  showFirst(told, !any && !state.namespace);
  finder.offer([...told.live, ...told.recent]);
  const [live, recent] = [told.live, told.recent].map((runs) => finder.pick(runs));
  finder.report(live.length + recent.length, told.live.length + told.recent.length);
  showRuns(byId("live"), live, told.now_us, many);
  const waiting = (told.counts.in_progress ?? 0) + (told.counts.pending ?? 0);
  const of = finder.active ? told.live.length : waiting;
  say(byId("now-count"), of > live.length ? `${live.length} of ${of}` : of ? String(of) : "");
  show(byId("live-none"), !live.length);
  say(byId("live-none"), finder.active && told.live.length ? "No running or queued run matches." : "No run is running or queued.");
  showRuns(byId("recent"), recent, told.now_us, many);
  const ended = told.recent.length;
  say(byId("recent-count"), recent.length < ended ? `${recent.length} of ${ended}` : ended ? String(ended) : "");
  show(byId("recent-none"), !recent.length);
  say(byId("recent-none"), finder.active && ended ? "No ended run matches." : "No run has ended yet.");
}

function look() {
  latest = null;
  state.past = [];
  feed.start(headers(), state.namespace);
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const text = name === "auto" ? "Auto" : name === "dark" ? "Dark" : "Light";
  say(byId("theme"), text);
  byId("theme").setAttribute("aria-label", `Theme: ${name === "auto" ? "automatic" : name}`);
}

function setNamespace(namespace) {
  state.namespace = namespace.trim();
  byId("namespace").value = state.namespace;
  const query = new URLSearchParams(state.namespace ? { namespace: state.namespace } : {}).toString();
  history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
}

build();
setTheme(localStorage.getItem(THEME) ?? "auto");
setNamespace(state.namespace);

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(localStorage.getItem(THEME) ?? "auto") + 1) % THEMES.length];
  localStorage.setItem(THEME, next);
  setTheme(next);
});
byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  setNamespace(byId("namespace").value);
  look();
});
byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = byId("token").value.trim();
  sessionStorage.setItem(TOKEN, state.token);
  byId("token").value = "";
  setNamespace(byId("login-namespace").value);
  look();
});
byId("leave").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.reload();
});
addEventListener("hashchange", () => detail.follow());

look();
detail.follow();
