import type { CallOptions as ConnectOptions } from "@connectrpc/connect";

import { pause } from "./durations.js";
import { HeadstartError } from "./errors.js";

const ATTEMPTS = 4;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 500;

/**
 * Make a call within `timeoutMs`, all its attempts together. UNAVAILABLE and CANCELLED are tried
 * again, up to four times in all; RetryInfo is the least pause.
 */
export async function callWithRetries<T>(
  attempt: (options: ConnectOptions) => Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  const ends = performance.now() + timeoutMs;
  for (let made = 1; ; made++) {
    const left = Math.max(1, Math.round(ends - performance.now()));
    let error: HeadstartError;
    try {
      return await attempt({ timeoutMs: left, ...(signal ? { signal } : {}) });
    } catch (reason) {
      error = HeadstartError.from(reason);
    }
    if (signal?.aborted) throw aborted(signal);
    const backoff = Math.min(FIRST_PAUSE_MS * 2 ** (made - 1), LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
    const wait = Math.max(error.retryAfterMs ?? 0, backoff);
    if (!error.retryable || made === ATTEMPTS || performance.now() + wait >= ends) throw error;
    await pause(wait, signal);
    if (signal?.aborted) throw aborted(signal);
  }
}

/** Return the error of a call that the caller's signal has ended. */
export function aborted(signal: AbortSignal): HeadstartError {
  return new HeadstartError("CANCELLED", "the caller cancelled the call", { cause: signal.reason });
}
