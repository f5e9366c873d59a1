import type { SecureClientSessionOptions } from "node:http2";

import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { HeadstartClient, type ClientOptions } from "./client.js";
import { withToken, type Token } from "./token.js";

export * from "./index.js";

const PING_MS = 60_000; // a server accepts a ping every ten seconds
const PING_TIMEOUT_MS = 10_000;
const MOST_BYTES = 64 * 1024 * 1024;

export interface NodeOptions extends Omit<ClientOptions, "onClose"> {
  token?: Token;
  /** `true`, or Node's options, such as `ca`, `cert` and `key` in PEM. Default: no TLS. */
  tls?: true | SecureClientSessionOptions;
}

/**
 * Connect by gRPC to `address`, such as "localhost:50051". All calls use one HTTP/2 connection, so
 * a proxy must spread them over several servers. It pings, and is opened anew when it breaks.
 */
export function createNodeClient(address: string, options: NodeOptions = {}): HeadstartClient {
  const { token, tls, ...rest } = options;
  if (!/^(\[[^\]]+\]|[^:/]+):\d+$/.test(address)) {
    throw new TypeError(`the address is not host:port, such as localhost:50051: ${address}`);
  }
  const baseUrl = `${tls ? "https" : "http"}://${address}`;
  const pings = { pingIntervalMs: PING_MS, pingTimeoutMs: PING_TIMEOUT_MS, pingIdleConnection: true };
  const sessionManager = new Http2SessionManager(baseUrl, pings, typeof tls === "object" ? tls : undefined);
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    interceptors: withToken(token),
    readMaxBytes: MOST_BYTES,
    acceptCompression: [],
  });
  return new HeadstartClient(transport, { ...rest, onClose: () => sessionManager.abort() });
}
