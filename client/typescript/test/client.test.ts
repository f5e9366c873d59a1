// Needs a server: HEADSTART_ADDRESS for gRPC, HEADSTART_URL for its HTTP port, and pipelines of
// tests/support/pipelines.py. `make test-languages` starts it.
import assert from "node:assert/strict";
import { mkdtemp, readdir, writeFile } from "node:fs/promises";
import { createServer, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";

import { createNodeClient } from "../src/node.js";
import { createWebClient, HeadstartClient, HeadstartError, type Results } from "../src/web.js";

const address = process.env["HEADSTART_ADDRESS"] ?? "localhost:50051";
const url = process.env["HEADSTART_URL"] ?? "http://localhost:8080";

interface Chain {
  one: number | bigint;
  two: number | bigint;
  three: number | bigint;
}

async function refusal(call: Promise<unknown>): Promise<HeadstartError> {
  const error = await call.then(
    () => assert.fail("the call succeeded"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof HeadstartError, String(error));
  return error;
}

/** Forwards connections, and can cut them. */
async function proxy(target: string) {
  const sockets = new Set<Socket>();
  const [host = "", port = ""] = target.split(/:(?=\d+$)/);
  const server = createServer((incoming) => {
    const outgoing = connect(Number(port), host);
    for (const socket of [incoming, outgoing]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        incoming.destroy();
        outgoing.destroy();
        sockets.delete(socket);
      });
    }
    incoming.pipe(outgoing).pipe(incoming);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const at = server.address();
  assert.ok(at && typeof at === "object");
  const cut = (): void => sockets.forEach((socket) => socket.destroy());
  const close = (): void => {
    server.close();
    cut();
  };
  return { address: `127.0.0.1:${at.port}`, cut, close };
}

const connections: [string, (through?: string) => HeadstartClient][] = [
  ["gRPC", (through) => createNodeClient(through ?? address)],
  ["Connect", (through) => createWebClient(through ? `http://${through}` : url)],
];

for (const [name, connectTo] of connections) {
  describe(name, () => {
    const client = connectTo();
    after(() => client.close());
    const key = (text: string): string => `${name}-${text}`;

    test("a run is started, watched and read", async () => {
      const started = await client.start(key("run"), "chain", { value: 1 });
      assert.deepEqual([started.outcome, started.revision], ["started", 1]);
      const seen: Results<Chain>[] = [];
      for await (const state of client.watchResults<Chain>(key("run"))) seen.push(state);
      assert.ok(seen.length > 1);
      assert.deepEqual(seen.map((each) => each.ended).indexOf(true), seen.length - 1);
      const got = await client.getResults<Chain>(key("run"), { waitMs: 1500.5 });
      assert.equal(got.status, "completed");
      assert.deepEqual(got.values, { one: 2, two: 4, three: 7 });
      // @ts-expect-error: the compiler refuses a step that the pipeline does not have
      assert.equal(got.values.four, undefined);
      assert.equal(got.steps["one"]?.state, "completed");
      assert.ok(got.createdAt && Math.abs(Date.now() - got.createdAt.getTime()) < 60_000);
      const part = await client.getResults<Chain>(key("run"), { resultSteps: ["two"] });
      assert.deepEqual(part.values, { two: 4 });
    });

    test("a wait that is not over returns what there is", async () => {
      await client.start(key("partial"), "chain", { value: 5 });
      const got = await client.getResults<Chain>(key("partial"), { waitMs: 3000, requiredSteps: ["one"] });
      assert.equal(got.values.one, 6);
      assert.equal(got.ended, false);
    });

    test("whole numbers beyond 2^53 are exact both ways", async () => {
      const value = 2n ** 53n + 1n;
      await client.start(key("large"), "noop", { value });
      const { values } = await client.getResults(key("large"), { waitMs: 5000 });
      assert.deepEqual(values, { nothing: value });
      const again = await client.start(key("large"), "noop", { value: value - 1n });
      assert.equal(again.outcome, "replaced");
    });

    test("many keys go in one call, each with its result or error", async () => {
      const [good, wrong, bad] = await client.startMany([
        { key: key("a"), pipeline: "noop", inputs: { value: 1 } },
        { key: key("b"), pipeline: "noop", inputs: { value: "x" } },
        { key: key("c"), pipeline: "missing" },
      ]);
      assert.ok(good && !(good instanceof HeadstartError) && good.outcome === "started");
      assert.ok(wrong instanceof HeadstartError);
      assert.equal(wrong.code, "INVALID_ARGUMENT");
      assert.deepEqual(wrong.violations.map((each) => each.field), ["custom.inputs.value"]);
      assert.equal(wrong.message, `custom.inputs.value: ${wrong.violations[0]?.description}`);
      assert.ok(bad instanceof HeadstartError);
      const found = await client.getMany([key("a"), key("none")], { waitMs: 5000 });
      const [a, none] = [found.get(key("a")), found.get(key("none"))];
      assert.ok(a && !(a instanceof HeadstartError));
      assert.deepEqual(a.values, { nothing: 1 });
      assert.ok(none instanceof HeadstartError && none.code === "NOT_FOUND");
      const long = Array.from({ length: 1000 }, (_, i) => `${i}`.padEnd(250, "x"));
      assert.equal((await client.getMany(long)).size, 1000);
      assert.equal((await client.getMany([])).size, 0);
    });

    test("a run is touched, listed, cancelled and deleted", async () => {
      const directory = await mkdtemp(join(tmpdir(), "headstart-"));
      await client.start(key("held"), "probe", { directory });
      assert.ok((await client.getStatus(key("held"))).steps["gated"]);
      const expires = await client.touch(key("held"), { ttlMs: 7_200_000 });
      assert.ok(expires && expires.getTime() > Date.now() + 3_600_000);
      const listed: string[] = [];
      for await (const run of client.list({ pageSize: 1, statuses: ["pending", "in_progress"] })) listed.push(run.key);
      assert.ok(listed.includes(key("held")));
      assert.equal((await client.cancel(key("held"), { revision: 7 })).cancelled, false);
      assert.deepEqual(await client.cancel(key("held")), { cancelled: true, status: "cancelled", revision: 1 });
      assert.equal(await client.deleteRun(key("held")), true);
      assert.equal(await client.deleteRun(key("held")), false);
      assert.equal((await refusal(client.getStatus(key("held")))).code, "NOT_FOUND");
    });

    test("a restart has a request id, so a repetition does not start once more", async () => {
      await client.start(key("restart"), "noop");
      const once = { restart: true, requestId: "same" };
      for (let i = 0; i < 2; i++) {
        assert.equal((await client.start(key("restart"), "noop", {}, once)).revision, 2);
      }
      assert.equal((await client.start(key("restart"), "noop", {}, { restart: true })).revision, 3);
    });

    test("wrong arguments name their fields", async () => {
      const error = await refusal(client.start("", "chain", { value: "x" }));
      assert.equal(error.code, "INVALID_ARGUMENT");
      assert.ok(error.violations.some((each) => each.field === "key"));
      const wait = await refusal(client.getResults(key("run"), { waitMs: NaN }));
      assert.deepEqual(wait.violations.map((each) => each.field), ["wait"]);
      assert.deepEqual((await refusal(client.getResults("x", { minRevision: 1.5 }))).violations[0]?.field, "min_revision");
      assert.equal((await refusal(client.getMany(["x"], { minReady: 0.5 }))).code, "INVALID_ARGUMENT");
    });

    test("a call has a deadline, and ends when its signal is aborted", async () => {
      const silent = createServer(() => {});
      await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
      const at = silent.address();
      assert.ok(at && typeof at === "object");
      const mute = connectTo(`127.0.0.1:${at.port}`);
      assert.equal((await refusal(mute.getStatus("k", { timeoutMs: 100 }))).code, "DEADLINE_EXCEEDED");
      const leaving = new AbortController();
      setTimeout(() => leaving.abort(), 50);
      assert.equal((await refusal(mute.getStatus("k", { signal: leaving.signal }))).code, "CANCELLED");
      mute.close();
      silent.close();
    });

    test("a server that is away is UNAVAILABLE after four attempts, soon", async () => {
      const away = connectTo("127.0.0.1:1");
      const began = performance.now();
      assert.equal((await refusal(away.getStatus("k"))).code, "UNAVAILABLE");
      assert.ok(performance.now() - began > 100, "it was tried again");
      away.close();
    });

    test("calls and watches outlive cut connections", async () => {
      const between = await proxy(name === "gRPC" ? address : new URL(url).host);
      const cutting = connectTo(between.address);
      const directory = await mkdtemp(join(tmpdir(), "headstart-"));
      await cutting.start(key("cut"), "probe", { directory });
      let cuts = 0;
      let last: Results | undefined;
      for await (const state of cutting.watchResults(key("cut"))) {
        last = state;
        if (state.values["first"] === undefined || cuts) continue;
        cuts++;
        between.cut();
        assert.ok((await readdir(directory)).includes("began"));
        await writeFile(join(directory, "go"), "");
      }
      assert.equal(cuts, 1);
      assert.equal(last?.status, "completed");
      between.cut();
      assert.equal((await cutting.getStatus(key("cut"))).status, "completed");
      cutting.close();
      between.close();
    });

    test("a watch of a missing key fails, and one that is left ends its stream", async () => {
      const missing = client.watchResults(key("missing"));
      assert.equal((await refusal(missing.next())).code, "NOT_FOUND");
      const directory = await mkdtemp(join(tmpdir(), "headstart-"));
      await client.start(key("left"), "probe", { directory });
      for await (const state of client.watchResults(key("left"))) {
        assert.equal(state.ended, false);
        break;
      }
      const leaving = new AbortController();
      setTimeout(() => leaving.abort(), 100);
      const watching = async (): Promise<void> => {
        for await (const _ of client.watchResults(key("left"), { signal: leaving.signal }));
      };
      assert.equal((await refusal(watching())).code, "CANCELLED");
      await client.cancel(key("left"));
    });
  });
}
