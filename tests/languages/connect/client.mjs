// Plays one scenario with the official Connect client for Node, and prints a line of JSON a step.
// Usage: node client.mjs URL json|proto TOKEN DIRECTORY
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema } from "./generated/google/rpc/error_details_pb.js";
import { PrecomputeService, PrecomputeStatus, StartOutcome } from "./generated/headstart/v1/precompute_pb.js";

const [url, form, token, directory] = process.argv.slice(2);
const client = createClient(
  PrecomputeService,
  createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    useBinaryFormat: form === "proto",
    useHttpGet: true,
    interceptors: [
      (next) => async (call) => {
        if (token) call.header.set("Authorization", `Bearer ${token}`);
        return next(call);
      },
    ],
  }),
);
const say = (line) => console.log(JSON.stringify(line));

async function refused(call) {
  try {
    await call();
  } catch (error) {
    const found = ConnectError.from(error);
    say({
      code: Code[found.code],
      violations: found.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations.map((each) => each.field)),
      reasons: found.findDetails(ErrorInfoSchema).map((info) => info.reason),
    });
    return;
  }
  say({ code: "OK" });
}

const key = `es-${form}`;
const spec = { case: "custom", value: { pipeline: "chain", inputs: { value: 1 } } };
const started = await client.startPrecompute({ key, spec });
say({ started: StartOutcome[started.outcome], revision: Number(started.revision) });

const statuses = [];
for await (const message of client.watchResults({ key })) {
  statuses.push(PrecomputeStatus[message.results.status]);
}
say({ watched: statuses.at(-1) });

const got = await client.getResults({ key, wait: { seconds: 5n } }, { timeoutMs: 10_000 });
say({ got: PrecomputeStatus[got.status], steps: Object.keys(got.steps).sort() });

await refused(() => client.getResults({ key: "missing" }));
await refused(() => client.startPrecompute({ key: "", spec }));
await refused(() => client.startPrecompute({ key: "wrong", spec: { case: "custom", value: { pipeline: "chain", inputs: { value: "x" } } } }));

const waiting = `waiting-${form}`;
await client.startPrecompute({ key: waiting, spec: { case: "custom", value: { pipeline: "probe", inputs: { directory } } } });
await refused(async () => {
  for await (const _ of client.watchResults({ key: waiting }, { timeoutMs: 200 })) {
    // until the deadline
  }
});
const leaving = new AbortController();
setTimeout(() => leaving.abort(), 100);
await refused(async () => {
  for await (const _ of client.watchResults({ key: waiting }, { signal: leaving.signal })) {
    // until it is aborted
  }
});
await client.cancelPrecompute({ key: waiting });
