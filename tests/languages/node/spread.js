'use strict';

// Calls GetStats from many callers at once until standard input ends; says "going" when it is under
// way, and at last, as JSON, how many answers each mark gave and every failure.
//
//   node spread.js TARGET CALLERS

const { Headstart } = require('../../../examples/node/headstart');

const [target, callers] = process.argv.slice(2);
const client = new Headstart(target);
const answers = {};
const failures = [];
let ending = false;
process.stdin.resume().on('end', () => (ending = true));

async function caller() {
  while (!ending) {
    try {
      const { max_cached: mark } = await client.call('GetStats', {}, 20);
      answers[mark] = (answers[mark] ?? 0) + 1;
      if (Object.keys(answers).length === 2 && !caller.said) {
        caller.said = true;
        console.log('going');
      }
    } catch (error) {
      failures.push(error.message);
    }
  }
}

Promise.all(Array.from({ length: Number(callers) }, caller)).then(() => {
  console.log(JSON.stringify({ answers, failures }));
  client.close();
});
