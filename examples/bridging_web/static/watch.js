// Watches a run at Headstart's HTTP port, by the Connect protocol and nothing else.

const HEAD = 5; // bytes before a message: flags, and its length
const END = 2; // the flag of the last one

function enveloped(message) {
  const data = new TextEncoder().encode(JSON.stringify(message));
  const made = new Uint8Array(HEAD + data.length);
  new DataView(made.buffer).setUint32(1, data.length);
  made.set(data, HEAD);
  return made;
}

// As docs/clients.md has it: pauses in milliseconds, and how often a stream may be cut without news.
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 3000;
const CUTS = 6;
const AGAIN = ['unavailable', 'canceled'];
const ENDED = ['PRECOMPUTE_STATUS_COMPLETED', 'PRECOMPUTE_STATUS_FAILED', 'PRECOMPUTE_STATUS_CANCELLED'];

class Refused extends Error {} // no other stream would help

// Yields each state of the run once until it has ended, over as many streams as that takes: a server
// ends a stream when it stops, and when its connection is old. Throws when it cannot.
export async function* watch(base, key, signal) {
  let last;
  let cuts = 0;
  for (;;) {
    let cut = new Error('the stream ended before the run did');
    let planned = false;
    try {
      for await (const results of stream(base, key, signal)) {
        planned = true;
        const state = JSON.stringify(results);
        if (state === last) continue;
        last = state;
        cuts = 0;
        yield results;
        if (ENDED.includes(results.status)) return;
      }
    } catch (error) {
      if (signal?.aborted || error instanceof Refused) throw error;
      cut = error;
      planned = false;
    }
    cuts = planned ? 1 : cuts + 1;
    if (cuts >= CUTS) throw cut;
    const pause = Math.min(FIRST_PAUSE * 2 ** (cuts - 1), LONGEST_PAUSE) * (0.5 + Math.random() / 2);
    await new Promise((resolve) => setTimeout(resolve, pause));
    signal?.throwIfAborted();
  }
}

// Yields what one stream has.
async function* stream(base, key, signal) {
  const response = await fetch(`${base}/headstart.v1.PrecomputeService/WatchResults`, {
    method: 'POST',
    headers: { 'content-type': 'application/connect+json' },
    body: enveloped({ key }),
    signal,
  });
  if (!response.ok) throw new (response.status < 500 ? Refused : Error)(`status ${response.status}`);
  const reader = response.body.getReader();
  try {
    yield* messages(reader);
  } finally {
    reader.cancel().catch(() => {}); // of a caller that leaves before the end
  }
}

async function* messages(reader) {
  let held = new Uint8Array(0);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error('the stream was cut');
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held);
    joined.set(value, held.length);
    held = joined;
    while (held.length >= HEAD) {
      const size = HEAD + new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (held.length < size) break;
      const message = JSON.parse(new TextDecoder().decode(held.subarray(HEAD, size)));
      if (held[0] === END) {
        const { error } = message;
        if (error) throw new (AGAIN.includes(error.code) ? Error : Refused)(error.message);
        return;
      }
      yield message.results;
      held = held.subarray(size);
    }
  }
}
