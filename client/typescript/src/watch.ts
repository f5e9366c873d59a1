import { equals } from "@bufbuild/protobuf";
import type { CallOptions as ConnectOptions } from "@connectrpc/connect";

import { aborted } from "./calls.js";
import { pause } from "./durations.js";
import { HeadstartError } from "./errors.js";
import {
  GetResultsResponseSchema,
  type GetResultsResponse,
  type WatchResultsResponse,
} from "./gen/headstart/v1/precompute_pb.js";
import { hasEnded } from "./results.js";

// A watch gives up after so many cuts in a row without news: some six seconds, longer than a
// rolling restart's gap.
const CUTS = 6;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 3000;
// A stream that lived so long was healthy. So was one that its server ended in order: servers that
// stop do so, and those that send their clients to new replicas.
const HEALTHY_STREAM_MS = 5000;

/** Yield each state of one run once, the ended one last, over as many streams as that takes. */
export async function* watch(
  open: (options: ConnectOptions) => AsyncIterable<WatchResultsResponse>,
  signal: AbortSignal | undefined,
): AsyncGenerator<GetResultsResponse, void, undefined> {
  let last: GetResultsResponse | undefined;
  let cuts = 0;
  for (;;) {
    const openedAt = performance.now();
    let answered = false;
    let planned = false;
    let cut = new HeadstartError("UNAVAILABLE", "the stream ended before the run did");
    const leaving = new AbortController();
    const leave = (): void => leaving.abort(signal?.reason);
    signal?.addEventListener("abort", leave);
    if (signal?.aborted) leave();
    try {
      // No deadline: 0 switches a transport's default off.
      for await (const { results } of open({ signal: leaving.signal, timeoutMs: 0 })) {
        answered = true;
        if (!results || (last && equals(GetResultsResponseSchema, last, results))) continue;
        cuts = 0;
        last = results;
        yield results;
        if (hasEnded(results.status)) return;
      }
      planned = answered;
    } catch (reason) {
      if (signal?.aborted) throw aborted(signal);
      cut = HeadstartError.from(reason);
      if (!cut.retryable) throw cut;
    } finally {
      signal?.removeEventListener("abort", leave);
      leaving.abort(); // ends the stream where the caller leaves the loop
    }
    cuts = planned || performance.now() - openedAt > HEALTHY_STREAM_MS ? 1 : cuts + 1;
    if (cuts >= CUTS) throw cut;
    const wait = Math.min(Math.max(cut.retryAfterMs ?? 0, FIRST_PAUSE_MS * 2 ** (cuts - 1)), LONGEST_PAUSE_MS);
    // Not all watchers of a lost server should reconnect at once.
    await pause(wait * (0.5 + Math.random() / 2), signal);
    if (signal?.aborted) throw aborted(signal);
  }
}
