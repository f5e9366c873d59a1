// What a page of another origin does with the official Connect client for browsers.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { PrecomputeService, PrecomputeStatus } from "./generated/headstart/v1/precompute_pb.js";

const clientOf = (url, useBinaryFormat) =>
  createClient(PrecomputeService, createConnectTransport({ baseUrl: url, useBinaryFormat, useHttpGet: true }));

// The value of the step `stamp`, if there is one.
function stampOf(results) {
  const value = results.results.value?.artifacts?.stamp?.value.value;
  return value === undefined ? null : Number(value);
}

// Watches a run; each message becomes { at, status, steps }, with the time in ms since 1970.
async function watch(url, key, binary, note) {
  for await (const message of clientOf(url, binary).watchResults({ key })) {
    const at = performance.timeOrigin + performance.now();
    const steps = Object.fromEntries(
      Object.entries(message.results.steps).map(([name, step]) => [name, step.state]),
    );
    note({ at, status: PrecomputeStatus[message.results.status], steps, stamp: stampOf(message.results) });
  }
}

async function status(url, key) {
  try {
    return PrecomputeStatus[(await clientOf(url, false).getStatus({ key })).status];
  } catch (error) {
    return Code[ConnectError.from(error).code];
  }
}

globalThis.headstart = { watch, status, clientOf };
