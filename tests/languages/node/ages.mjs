// Calls GetStats for SECONDS by the Node client, and watches a run by it and by the game page's
// watch.js. Prints "watching" when it does, and at last, as JSON, what came.
//
//   node ages.mjs ADDRESS URL KEY SECONDS

import { createRequire } from 'node:module';
import { watch } from '../../../examples/bridging_web/static/watch.js';

const { Headstart } = createRequire(import.meta.url)('../../../examples/node/headstart.js');
const [address, url, key, seconds] = process.argv.slice(2);
const client = new Headstart(address);
const until = performance.now() + seconds * 1000;
const failures = [];
let answers = 0;

async function caller() {
  while (performance.now() < until) {
    await client.call('GetStats', {}, 20).then(() => (answers += 1), ({ message }) => failures.push(message));
  }
}

async function watched(states) {
  const seen = [];
  for await (const state of states) {
    if (!seen.length) console.log('watching');
    seen.push(JSON.stringify(state));
  }
  return seen;
}

const [node, page] = await Promise.all([
  watched(client.watch(key)),
  watched(watch(url, key)),
  ...Array.from({ length: 8 }, caller),
]);
console.log(JSON.stringify({ answers, failures, node, page }));
client.close();
