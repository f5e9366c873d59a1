import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Client, type Transport } from "@connectrpc/connect";

import { callWithRetries } from "./calls.js";
import { date, duration } from "./durations.js";
import { HeadstartError } from "./errors.js";
import {
  PrecomputeService,
  PrecomputeStatus,
  StartPrecomputeRequestSchema,
  type ListPrecomputesRequestSchema,
  type StartPrecomputeRequest,
} from "./gen/headstart/v1/precompute_pb.js";
import * as from from "./results.js";
import type { Results, Run, RunStatus, Started, Status, Value } from "./results.js";
import { inputsText, type Input } from "./values.js";
import { watch } from "./watch.js";

const TIMEOUT_MS = 5000;
const MOST_STARTS = 1000;

/** Of every call. */
export interface CallOptions {
  /** Instead of the client's. */
  namespace?: string;
  /** How long the call may take, retries included; a read may take its `waitMs` more. Default: 5,000. */
  timeoutMs?: number;
  /** Ends the call with CANCELLED when it is aborted. */
  signal?: AbortSignal;
}

export interface StartOptions {
  namespace?: string;
  /** How long results live after the run has ended. Default: the server's, 30 minutes. */
  ttlMs?: number;
  /** Compute anew even when the same inputs are computed. */
  restart?: boolean;
  /** The same in each repetition of this start. Default with `restart`: a random one. */
  requestId?: string;
  /** In how long the results are likely to be asked for. Default: at once. */
  expectedNeedInMs?: number;
}

/** One start of `startMany`. */
export interface Start extends StartOptions {
  key: string;
  pipeline: string;
  inputs?: { readonly [name: string]: Input };
}

export interface ReadOptions extends CallOptions {
  /** How long to wait for `requiredSteps`: 0, the default, to 10 minutes. */
  waitMs?: number;
  /** The steps to wait for. Default: all. */
  requiredSteps?: readonly string[];
  /** The steps whose results are wanted. Default: all. */
  resultSteps?: readonly string[];
}

export interface ClientOptions {
  /** Of all calls that name none. Default: the server's "default". */
  namespace?: string;
  /** Of all calls that name none. Default: 5,000. */
  timeoutMs?: number;
  /** Called by `close`. */
  onClose?: () => void;
}

/**
 * Calls a Headstart service. Make one a process, by `createNodeClient` or `createWebClient`. Calls
 * reject with HeadstartError alone.
 */
export class HeadstartClient {
  /** The generated client, for what has no method here. It has no default deadline and no retries. */
  readonly stub: Client<typeof PrecomputeService>;
  readonly #options: ClientOptions;

  constructor(transport: Transport, options: ClientOptions = {}) {
    this.stub = createClient(PrecomputeService, transport);
    this.#options = options;
  }

  /** Start a run, or join or reuse the one of the same key and inputs. */
  async start(
    key: string,
    pipeline: string,
    inputs: { readonly [name: string]: Input } = {},
    options: StartOptions & CallOptions = {},
  ): Promise<Started> {
    const request = this.#startRequest({ ...options, key, pipeline, inputs });
    return from.started(await this.#call(options, (call) => this.stub.startPrecompute(request, call)));
  }

  /**
   * Start many runs; return for each what `start` returns, or its error. More than 1,000 are sent in
   * several calls, one after the other.
   */
  async startMany(starts: readonly Start[], options: CallOptions = {}): Promise<(Started | HeadstartError)[]> {
    const requests = starts.map((start) => this.#startRequest({ ...options, ...start }));
    const found: (Started | HeadstartError)[] = [];
    for (let first = 0; first < requests.length; first += MOST_STARTS) {
      const batch = { requests: requests.slice(first, first + MOST_STARTS) };
      const answer = await this.#call(options, (call) => this.stub.batchStartPrecomputes(batch, call));
      for (const { result } of answer.results) found.push(item(result, from.started));
    }
    return found;
  }

  /** Return what exists of a run's results, after at most `waitMs`. */
  async getResults<S extends object = Record<string, Value>>(
    key: string,
    options: ReadOptions & { minRevision?: number } = {},
  ): Promise<Results<S>> {
    const request = { key, minRevision: whole("min_revision", options.minRevision), ...this.#read(options) };
    return from.results<S>(
      await this.#call(options, (call) => this.stub.getResults(request, call), options.waitMs),
    );
  }

  /** Return for each key what `getResults` returns, or its error. Without keys no call is made. */
  async getMany<S extends object = Record<string, Value>>(
    keys: readonly string[],
    options: ReadOptions & { minReady?: number } = {},
  ): Promise<Map<string, Results<S> | HeadstartError>> {
    const request = { keys: [...keys], minReady: options.minReady ?? 0, ...this.#read(options) };
    if (keys.length === 0) return new Map();
    const answer = await this.#call(options, (call) => this.stub.batchGetResults(request, call), options.waitMs);
    return new Map(answer.results.map(({ result }, i) => [keys[i] ?? "", item(result, from.results<S>)]));
  }

  /**
   * Yield each state of a run, the ended one last. A stream that is cut is resumed; leave the loop,
   * or abort `signal`, to end it early.
   */
  async *watchResults<S extends object = Record<string, Value>>(
    key: string,
    options: { namespace?: string; resultSteps?: readonly string[]; signal?: AbortSignal } = {},
  ): AsyncGenerator<Results<S>, void, undefined> {
    const request = { namespace: this.#namespace(options), key, resultSteps: [...(options.resultSteps ?? [])] };
    for await (const message of watch((call) => this.stub.watchResults(request, call), options.signal)) {
      yield from.results<S>(message);
    }
  }

  /** Return a run's status without its results. */
  async getStatus(key: string, options: CallOptions = {}): Promise<RunStatus> {
    const request = { namespace: this.#namespace(options), key };
    return from.runStatus(await this.#call(options, (call) => this.stub.getStatus(request, call)));
  }

  /** Cancel a run that has not ended; `cancelled` is whether this call did so. */
  async cancel(
    key: string,
    options: CallOptions & { revision?: number } = {},
  ): Promise<{ cancelled: boolean; status: Status; revision: number }> {
    const request = this.#revision(key, options);
    const answer = await this.#call(options, (call) => this.stub.cancelPrecompute(request, call));
    return { cancelled: answer.cancelled, status: from.status(answer.status), revision: Number(answer.revision) };
  }

  /** Delete a run and its results; return whether there was one. */
  async deleteRun(key: string, options: CallOptions & { revision?: number } = {}): Promise<boolean> {
    const request = this.#revision(key, options);
    return (await this.#call(options, (call) => this.stub.deletePrecompute(request, call))).deleted;
  }

  /** Let results live for `ttlMs` at least; return when they are forgotten. */
  async touch(
    key: string,
    options: CallOptions & { ttlMs?: number; revision?: number } = {},
  ): Promise<Date | undefined> {
    const request = { ...this.#revision(key, options), ...durations({ ttl: options.ttlMs }) };
    return date((await this.#call(options, (call) => this.stub.touchPrecompute(request, call))).expiresAt);
  }

  /** Yield the runs that are kept, in order, over as many pages as that takes; "" lists all namespaces. */
  async *list(
    options: CallOptions & { statuses?: readonly Exclude<Status, "unspecified">[]; pageSize?: number } = {},
  ): AsyncGenerator<Run, void, undefined> {
    const request: MessageInitShape<typeof ListPrecomputesRequestSchema> = {
      namespace: options.namespace ?? this.#options.namespace ?? "default",
      pageSize: options.pageSize ?? 0,
      statuses: (options.statuses ?? []).map(
        (each) => PrecomputeStatus[each.toUpperCase() as Uppercase<Exclude<Status, "unspecified">>],
      ),
    };
    do {
      const page = await this.#call(options, (call) => this.stub.listPrecomputes(request, call));
      for (const summary of page.precomputes) yield from.run(summary);
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /** Close the connection. */
  close(): void {
    this.#options.onClose?.();
  }

  #call<T>(
    { timeoutMs, signal }: CallOptions,
    attempt: Parameters<typeof callWithRetries<T>>[0],
    waitMs = 0,
  ): Promise<T> {
    const within = timeoutMs ?? this.#options.timeoutMs ?? TIMEOUT_MS;
    return callWithRetries(attempt, within + Math.max(0, waitMs), signal);
  }

  #namespace(options: { namespace?: string }): string {
    return options.namespace ?? this.#options.namespace ?? "";
  }

  #read(options: ReadOptions) {
    return {
      namespace: this.#namespace(options),
      requiredSteps: [...(options.requiredSteps ?? [])],
      resultSteps: [...(options.resultSteps ?? [])],
      ...durations({ wait: options.waitMs }),
    };
  }

  #revision(key: string, options: CallOptions & { revision?: number }) {
    return { namespace: this.#namespace(options), key, revision: whole("revision", options.revision) };
  }

  #startRequest(start: Start): StartPrecomputeRequest {
    return create(StartPrecomputeRequestSchema, {
      namespace: this.#namespace(start),
      key: start.key,
      spec: { case: "custom", value: { pipeline: start.pipeline, inputsJson: inputsText(start.inputs ?? {}) } },
      restart: start.restart ?? false,
      requestId: start.requestId ?? (start.restart ? randomId() : ""),
      ...durations({ ttl: start.ttlMs, expectedNeedIn: start.expectedNeedInMs }),
    });
  }
}

function item<M, T>(
  result:
    | { case: "response"; value: M }
    | { case: "error"; value: Parameters<typeof HeadstartError.ofItem>[0] }
    | { case: undefined; value?: undefined },
  convert: (message: M) => T,
): T | HeadstartError {
  if (result.case === "response") return convert(result.value);
  if (result.case === "error") return HeadstartError.ofItem(result.value);
  return new HeadstartError("UNKNOWN", "the server sent neither a result nor an error");
}

/** Return those durations that are set, as messages. */
function durations<N extends string>(fields: Record<N, number | undefined>) {
  const set = Object.entries<number | undefined>(fields).flatMap(([name, ms]) =>
    ms === undefined ? [] : [[name, duration(name, ms)] as const],
  );
  return Object.fromEntries(set) as Partial<Record<N, ReturnType<typeof duration>>>;
}

function whole(field: string, value = 0): bigint {
  if (Number.isSafeInteger(value)) return BigInt(value);
  const violations = [{ field, description: `must be a whole number, is ${value}` }];
  throw new HeadstartError("INVALID_ARGUMENT", "", { violations });
}

/** Return 128 random bits. Unlike crypto.randomUUID, this works on pages without TLS too. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
