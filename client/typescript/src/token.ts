import type { Interceptor } from "@connectrpc/connect";

/** A token, or a function that returns the present one. */
export type Token = string | (() => string | Promise<string>);

export function withToken(token: Token | undefined): Interceptor[] {
  if (token === undefined) return [];
  return [
    (next) => async (request) => {
      const value = typeof token === "string" ? token : await token();
      request.header.set("Authorization", `Bearer ${value}`);
      return next(request);
    },
  ];
}
