// The game's page: begins games, submits clues, shows what came back.

import { histogram } from './histogram.js';
import { watch } from './watch.js';

const $ = (id) => document.getElementById(id);
let game = null;
let draw = () => {};
let names = { you: 'You', lexical: 'Lexical baseline', haiku: 'Claude Haiku' };

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({ detail: `status ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error('refused'), { status: response.status, detail: answer.detail });
  return answer;
}

// Shows what a refusal says beside the fields that it names; all else above everything.
function complain(error, form) {
  const rest = [];
  let first = null;
  for (const { loc = [], msg } of Array.isArray(error.detail) ? error.detail : []) {
    const path = loc.slice(1).join('-');
    const field = $(path);
    if (!field || !form.contains(field)) { rest.push(`${path}: ${msg}`); continue; }
    const note = element('span', { className: 'wrong', id: `${field.id}-wrong`, textContent: msg });
    field.setAttribute('aria-invalid', 'true');
    field.setAttribute('aria-describedby', note.id);
    field.parentElement.append(note);
    first ??= field;
  }
  if (!Array.isArray(error.detail)) rest.push(error.detail ?? 'The server does not answer.');
  trouble(rest.join(' · '));
  first?.focus();
}

function trouble(text) {
  $('trouble').hidden = !text;
  $('trouble').textContent = text;
}

function forget(form) {
  trouble('');
  for (const note of form.querySelectorAll('.wrong')) note.remove();
  for (const field of form.querySelectorAll('[aria-invalid]')) {
    field.removeAttribute('aria-invalid');
    field.removeAttribute('aria-describedby');
  }
}

async function busily(form, work) {
  const button = form.querySelector('[type=submit]');
  forget(form);
  button.disabled = true;
  form.setAttribute('aria-busy', 'true');
  try {
    await work();
  } catch (error) {
    complain(error, form);
  } finally {
    button.disabled = false;
    form.removeAttribute('aria-busy');
  }
}

async function begin(clues = []) {
  const form = $('begin');
  $('submit').disabled = true; // what is submitted now would be of the game before
  await busily(form, async () => {
    game = await call('/bridging/', {
      anchor: $('anchor').value,
      target: $('target').value,
      recipient_type: form.elements.recipient_type.value,
      head_start: $('head-start').checked,
    });
    const words = [game.anchor, game.target, game.recipient_type].join(' ');
    if (words !== compared) {
      compared = words; // waits of other games would compare nothing
      Object.assign(waits, { without: null, with: null });
      $('waits-note').textContent = WAITS;
    }
    drawWaits();
    if (game.not_started) trouble(`No head start: ${game.not_started}. The game goes on without.`);
    $('play-title').textContent = `2. From ${game.anchor} to ${game.target}`;
    $('clue-fields').replaceChildren(...Array.from({ length: game.clue_count }, (_, at) => {
      const id = `clues-${at}`;
      const label = element('label', { textContent: `Clue ${at + 1}` });
      label.htmlFor = id;
      const input = element('input', { id, maxLength: 64, autocomplete: 'off', spellcheck: false, value: clues[at] ?? '' });
      input.setAttribute('autocapitalize', 'none');
      return element('p', { className: 'field' }, label, input);
    }));
    $('play').hidden = false;
    $('result').hidden = true;
    $('clues-0').focus();
    $('play').scrollIntoView({ block: 'nearest' });
  });
  $('submit').disabled = false;
  if (game) follow();
}

let watching = new AbortController();

// Shows how many parts Headstart has computed so far, as it reports them.
async function follow() {
  watching.abort();
  watching = new AbortController();
  const { signal } = watching;
  const progress = $('progress');
  progress.hidden = true;
  if (!about?.headstart || !game.head_start || game.not_started) return;
  try {
    for await (const { steps } of watch(about.headstart, game.id, signal)) {
      if (signal.aborted) return;
      const all = Object.values(steps);
      const ready = all.filter(({ state }) => state === 'STEP_STATE_COMPLETED').length;
      progress.textContent = `Computed so far: ${ready} of ${all.length} parts.`;
      progress.hidden = false;
    }
  } catch {
    progress.hidden = progress.hidden || signal.aborted; // what was seen last stays true
  }
}

const typed = () => [...$('clue-fields').querySelectorAll('input')].map((field) => field.value);

// Shows how long the player has been waiting, ten times a second, until the returned function is called.
function startClock(kind) {
  const began = performance.now();
  const { took } = bar(kind);
  const tick = () => {
    const waited = performance.now() - began;
    $('clock').textContent = `waiting for ${(waited / 1000).toFixed(1)} s`;
    took.textContent = `${(waited / 1000).toFixed(1)} s …`;
    $('clock').hidden = false;
    drawBars({ ...waits, [kind]: waited });
  };
  const timer = setInterval(tick, 100);
  return () => {
    clearInterval(timer);
    $('clock').hidden = true;
    drawWaits();
  };
}

const waits = { without: null, with: null }; // milliseconds of the last submit of each kind

const WAITS = $('waits-note').textContent;
let compared = '';

function bar(kind) {
  const row = $('waits').querySelector(`[data-kind=${kind}]`);
  return { fill: row.querySelector('.fill'), took: row.querySelector('.took') };
}

function drawBars(shown) {
  const longest = Math.max(1, ...Object.values(shown));
  for (const [kind, ms] of Object.entries(shown)) bar(kind).fill.style.width = ms === null ? '0' : `${Math.max(0.5, (100 * ms) / longest)}%`;
}

function drawWaits() {
  drawBars(waits);
  for (const [kind, ms] of Object.entries(waits)) bar(kind).took.textContent = ms === null ? 'not played yet' : duration(ms);
  if (waits.without === null || waits.with === null) return;
  const less = waits.without - waits.with;
  $('waits-note').textContent = less > 0
    ? `With the head start you waited ${duration(less)} less.`
    : 'The head start did not help this time: you submitted before the parts were computed. Take some seconds for the clues.';
}

async function submit() {
  const stop = startClock(game.head_start ? 'with' : 'without');
  try { await sendClues(); } finally { stop(); }
}

async function sendClues() {
  await busily($('clues'), async () => {
    const clues = typed();
    while (clues.length > 1 && !clues.at(-1).trim()) clues.pop();
    const submitted = game;
    const began = performance.now();
    const answer = await call(`/bridging/${encodeURIComponent(game.id)}/clues`, { clues });
    const took = performance.now() - began;
    if (submitted === game) show(answer, took); // nobody has begun another one meanwhile
  });
}

const duration = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);
const percent = (value) => `${value.toFixed(value === Math.round(value) ? 0 : 1)} %`;

function show(answer, took) {
  waits[answer.head_start ? 'with' : 'without'] = took;
  $('took').textContent = duration(took);
  $('score').textContent = answer.you.score.toFixed(3);
  $('percentile').textContent = percent(answer.you.percentile);
  $('how').textContent = how(answer);
  const kinds = ['you', 'lexical', 'haiku'].filter((kind) => answer[kind]);
  const marks = kinds.filter((kind) => !answer[kind].error)
    .map((kind) => ({ kind, name: names[kind], value: answer[kind].score, percentile: answer[kind].percentile }));
  $('result').hidden = false;
  draw = () => $('histogram').replaceChildren(histogram(answer.null_samples, marks, $('histogram').clientWidth));
  draw();
  $('bridges').tBodies[0].replaceChildren(...kinds.map((kind) => row(kind, answer[kind])));
  $('parts').tBodies[0].replaceChildren(...parts(answer));
  const other = !answer.head_start;
  $('again').textContent = `The same with head start ${other ? 'on' : 'off'}`;
  $('history').hidden = false;
  $('submits').append(element('li', {},
    element('b', { textContent: duration(took) }),
    ` with head start ${answer.head_start ? 'on' : 'off'}, ${game.recipient_type === 'haiku' ? `against ${names.haiku}` : 'for a person'}: ${game.anchor}, ${game.target}`));
  $('result-title').focus({ preventScroll: true });
  $('result').scrollIntoView({ block: 'start' });
}

function how(answer) {
  const count = (source) => Object.values(answer.parts).filter((part) => part.source === source).length;
  const all = Object.keys(answer.parts).length;
  if (!answer.head_start) return `Head start off: all ${all} parts were computed after you had submitted.`;
  const said = [['ready', 'ready'], ['waited', 'waited for'], ['live', 'computed after you had submitted'], ['failed', 'failed']]
    .filter(([source]) => count(source)).map(([source, words]) => `${count(source)} ${words}`);
  return `Head start on: of ${all} parts, ${said.join(', ')}.`;
}

function row(kind, bridge) {
  const head = element('th', { scope: 'row', className: kind, textContent: names[kind] });
  if (bridge.error) {
    return element('tr', {}, head, element('td', { colSpan: 3, textContent: `none: ${bridge.error}` }));
  }
  const words = bridge.words.map(({ word, relevance }) => element('span', { className: 'word' },
    `${word} `, element('small', { textContent: relevance.toFixed(2) })));
  return element('tr', {}, head,
    element('td', { className: 'number', textContent: bridge.score.toFixed(3) }),
    element('td', { className: 'number', textContent: percent(bridge.percentile) }),
    element('td', {}, ...words));
}

function parts(answer) {
  const said = { ready: 'was ready', waited: 'waited for', live: 'computed then', failed: 'failed' };
  const rows = Object.entries(answer.parts).map(([name, part]) =>
    [name, part.error ? `${said[part.source]}: ${part.error}` : said[part.source], part.seconds]);
  rows.push(['embeddings of your clues', 'computed then, always', answer.clues_embedded_in]);
  rows.push(['the whole answer', '', answer.seconds]);
  return rows.map(([name, source, seconds]) => element('tr', {},
    element('th', { scope: 'row', textContent: name }),
    element('td', { textContent: source }),
    element('td', { className: 'number', textContent: duration(seconds * 1000) })));
}

addEventListener('resize', () => draw());
$('begin').addEventListener('submit', (event) => { event.preventDefault(); begin(); });
$('clues').addEventListener('submit', (event) => { event.preventDefault(); submit(); });
$('head-start').addEventListener('change', () => {
  $('head-start-note').textContent = $('head-start').checked ? 'Compute while I type.' : 'Compute when I submit.';
});
$('again').addEventListener('click', () => {
  $('head-start').checked = !game.head_start;
  $('head-start').dispatchEvent(new Event('change'));
  begin(typed());
});
$('new').addEventListener('click', () => { $('anchor').focus(); $('anchor').select(); });

const about = await call('/about').catch(() => null);
if (about?.stand_in) {
  names = { ...names, haiku: 'Stand-in for Haiku' };
  $('haiku-name').textContent = 'A stand-in for Haiku';
  $('stand-in').hidden = false;
}
document.documentElement.dataset.ready = 'true';
