// Needs a server with mTLS and tokens: see the fixture `secured` of tests/languages/conftest.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { createNodeClient, type HeadstartClient, type NodeOptions } from "../src/node.js";

const variable = (name: string): string => process.env[`SECURED_${name}`] ?? "";

test("TLS and a token", { skip: !variable("ADDRESS") }, async () => {
  const read = (name: string): Buffer => readFileSync(variable(name));
  const tls = { ca: read("CA"), cert: read("CERT"), key: read("KEY") };
  const using = async (options: NodeOptions, call: (client: HeadstartClient) => Promise<void>): Promise<void> => {
    const client = createNodeClient(variable("ADDRESS"), { tls, namespace: "shop", ...options });
    await call(client).finally(() => client.close());
  };
  await using({}, async (client) => {
    await assert.rejects(client.start("ts", "noop"), { code: "UNAUTHENTICATED" });
  });
  await using({ token: variable("READER") }, async (client) => {
    const refusal = { code: "PERMISSION_DENIED", metadata: { field: "namespace", missing: "write" } };
    await assert.rejects(client.start("ts", "noop"), refusal);
  });
  await using({ token: async () => variable("TOKEN") }, async (client) => {
    await client.start("ts", "noop");
    let last: string | undefined;
    for await (const { status } of client.watchResults("ts")) last = status;
    assert.equal(last, "completed");
    const found: string[] = [];
    for await (const { key } of client.list()) found.push(key);
    assert.deepEqual(found, ["ts"]);
  });
});
