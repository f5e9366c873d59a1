import { createConnectTransport } from "@connectrpc/connect-web";

import { HeadstartClient, type ClientOptions } from "./client.js";
import { withToken, type Token } from "./token.js";

export * from "./index.js";

export interface WebOptions extends Omit<ClientOptions, "onClose"> {
  token?: Token;
}

/**
 * Connect by `fetch` to a server's HTTP port, such as "https://headstart.example". Reads are GETs,
 * which need no preflight without a token. A page of another origin needs HEADSTART_CORS_ORIGINS.
 */
export function createWebClient(baseUrl: string, options: WebOptions = {}): HeadstartClient {
  const { token, ...rest } = options;
  const transport = createConnectTransport({
    baseUrl,
    useBinaryFormat: true,
    useHttpGet: true,
    interceptors: withToken(token),
  });
  return new HeadstartClient(transport, rest);
}
