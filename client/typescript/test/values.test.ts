import assert from "node:assert/strict";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { duration } from "../src/durations.js";
import { RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { PrecomputeService, TensorSchema } from "../src/gen/headstart/v1/precompute_pb.js";
import { HeadstartClient, HeadstartError, inputsText, parseJson } from "../src/index.js";
import { tensor } from "../src/values.js";

function field(write: () => unknown): string | undefined {
  try {
    write();
  } catch (error) {
    assert.ok(error instanceof HeadstartError);
    return error.violations[0]?.field;
  }
  return undefined;
}

test("inputs are written exactly, as JSON.stringify writes what it can", () => {
  const plain = { a: [1, 2.5, -0.1, 1e300, null, true, undefined], "ü\"": "\u0007é", gone: undefined, at: new Date(0) };
  assert.equal(inputsText(plain), JSON.stringify(plain));
  assert.equal(inputsText({ id: 2n ** 64n }), '{"id":18446744073709551616}');
});

test("inputs that would arrive as others are refused by their path", () => {
  assert.equal(field(() => inputsText({ a: [0, NaN] })), "custom.inputs.a.1");
  assert.equal(field(() => inputsText({ a: { b: 2 ** 53 } })), "custom.inputs.a.b");
  assert.equal(field(() => inputsText({ a: (() => 1) as never })), "custom.inputs.a");
});

test("JSON of results keeps whole numbers", () => {
  const text = '{"a":[9007199254740993,-9007199254740993,1234567890123456],"b":"9007199254740993\\"","c":9007199254740993.0,"d":1e22}';
  assert.deepEqual(parseJson(text), {
    a: [2n ** 53n + 1n, -(2n ** 53n) - 1n, 1234567890123456],
    b: '9007199254740993"',
    c: 9007199254740992,
    d: 1e22,
  });
  assert.equal(parseJson("18446744073709551616"), 2n ** 64n);
});

test("tensors are arrays over the message's bytes, also where these are not aligned", () => {
  const bytes = new Uint8Array(new Float64Array([0, 1.5, -2]).buffer);
  const unaligned = new Uint8Array(25);
  unaligned.set(bytes, 1);
  for (const data of [bytes, unaligned.subarray(1)]) {
    const found = tensor(create(TensorSchema, { dtype: "float64", shape: [3n], data }));
    assert.deepEqual(found, { dtype: "float64", shape: [3], data: new Float64Array([0, 1.5, -2]) });
  }
  const view = tensor(create(TensorSchema, { dtype: "float64", shape: [3n], data: bytes }));
  assert.equal(view.data.buffer, bytes.buffer);
  const ids = new Uint8Array(new BigInt64Array([-1n, 2n ** 62n]).buffer);
  assert.deepEqual(tensor(create(TensorSchema, { dtype: "int64", shape: [2n], data: ids })).data, new BigInt64Array([-1n, 2n ** 62n]));
  // 1, -2, infinity, the smallest, NaN
  const halves = new Uint8Array([0, 0x3c, 0, 0xc0, 0, 0x7c, 1, 0, 0, 0x7e]);
  assert.deepEqual(
    tensor(create(TensorSchema, { dtype: "float16", shape: [5n], data: halves })).data,
    new Float32Array([1, -2, Infinity, 2 ** -24, NaN]),
  );
});

test("durations keep fractions", () => {
  assert.deepEqual([duration("x", 1500.25).seconds, duration("x", 1500.25).nanos], [1n, 500_250_000]);
  assert.deepEqual([duration("x", -1.5).seconds, duration("x", -1.5).nanos], [0n, -1_500_000]);
});

test("UNAVAILABLE and CANCELLED are retried, not before RetryInfo's pause; others are not", async () => {
  const failing = (code: Code, times: number, retryAfterMs = 0) => {
    let calls = 0;
    const at: number[] = [];
    const transport = createRouterTransport(({ service }) => {
      service(PrecomputeService, {
        getStatus: () => {
          at.push(performance.now());
          if (++calls > times) return { key: "k" };
          const delay = { retryDelay: durationFromMs(retryAfterMs) };
          throw new ConnectError("no", code, undefined, retryAfterMs ? [{ desc: RetryInfoSchema, value: delay }] : []);
        },
      });
    });
    return { client: new HeadstartClient(transport), at };
  };
  for (const code of [Code.Unavailable, Code.Canceled]) {
    const { client, at } = failing(code, 3);
    assert.equal((await client.getStatus("k")).key, "k");
    assert.equal(at.length, 4);
  }
  const four = failing(Code.Unavailable, 9);
  await assert.rejects(four.client.getStatus("k"), { code: "UNAVAILABLE" });
  assert.equal(four.at.length, 4);
  const paced = failing(Code.Unavailable, 1, 300);
  await paced.client.getStatus("k");
  assert.ok(paced.at[1]! - paced.at[0]! >= 295);
  const late = failing(Code.Unavailable, 1, 300);
  await assert.rejects(late.client.getStatus("k", { timeoutMs: 200 }), { code: "UNAVAILABLE", retryAfterMs: 300 });
  assert.equal(late.at.length, 1);
  const full = failing(Code.ResourceExhausted, 1, 300);
  await assert.rejects(full.client.getStatus("k"), { code: "RESOURCE_EXHAUSTED", retryAfterMs: 300 });
  assert.equal(full.at.length, 1);
});
