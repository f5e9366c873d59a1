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

// Yields the run's results now and after each change, until it has ended. Throws when it cannot.
export async function* watch(base, key, signal) {
  const response = await fetch(`${base}/headstart.v1.PrecomputeService/WatchResults`, {
    method: 'POST',
    headers: { 'content-type': 'application/connect+json' },
    body: enveloped({ key }),
    signal,
  });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const reader = response.body.getReader();
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
        if (message.error) throw new Error(message.error.message);
        return;
      }
      yield message.results;
      held = held.subarray(size);
    }
  }
}
