import { create } from "@bufbuild/protobuf";
import { DurationSchema, type Duration, type Timestamp } from "@bufbuild/protobuf/wkt";

import { HeadstartError } from "./errors.js";

/**
 * Return a protobuf Duration of so many milliseconds. Its `seconds` are a whole bigint, so 1.5 s are
 * `{ seconds: 1n, nanos: 500_000_000 }`, and no fractional number fits.
 */
export function duration(name: string, ms: number): Duration {
  if (typeof ms !== "number" || !Number.isFinite(ms)) {
    const description = `must be a number of milliseconds, is ${String(ms)}`;
    throw new HeadstartError("INVALID_ARGUMENT", "", { violations: [{ field: name, description }] });
  }
  const micros = BigInt(Math.round(ms * 1000));
  return create(DurationSchema, { seconds: micros / 1_000_000n, nanos: Number(micros % 1_000_000n) * 1000 });
}

export function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

export function date(timestamp: Timestamp | undefined): Date | undefined {
  return timestamp && new Date(Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1e6));
}

/** Wait so long, or until `signal` is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
