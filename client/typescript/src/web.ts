import { create, toBinary, type DescMethodUnary, type MessageInitShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

import { HeadstartClient, type ClientOptions } from "./client.js";
import { withToken, type Token } from "./token.js";

export * from "./index.js";

const MOST_BYTES_OF_A_GET = 2048;

export interface WebOptions extends Omit<ClientOptions, "onClose"> {
  token?: Token;
}

/**
 * Connect by `fetch` to a server's HTTP port, such as "https://headstart.example". Small reads are
 * GETs, which need no preflight without a token. A page of another origin needs HEADSTART_CORS_ORIGINS.
 */
export function createWebClient(baseUrl: string, options: WebOptions = {}): HeadstartClient {
  const { token, ...rest } = options;
  const shared = { baseUrl, useBinaryFormat: true, interceptors: withToken(token) };
  const post = createConnectTransport(shared);
  const get = createConnectTransport({ ...shared, useHttpGet: true });
  const transport: Transport = {
    stream: (...call) => post.stream(...call),
    unary: (method, signal, timeoutMs, header, input, values) =>
      (fitsUrl(method, input) ? get : post).unary(method, signal, timeoutMs, header, input, values),
  };
  return new HeadstartClient(transport, rest);
}

/** Whether a GET may hold the request; servers and proxies refuse long addresses. */
function fitsUrl<M extends DescMethodUnary>({ input }: M, message: MessageInitShape<M["input"]>): boolean {
  try {
    return toBinary(input, create(input, message)).byteLength <= MOST_BYTES_OF_A_GET;
  } catch {
    return false; // the transport reports what is wrong
  }
}
