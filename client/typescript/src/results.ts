import { date, milliseconds } from "./durations.js";
import {
  FailureReason,
  PendingReason,
  PrecomputeStatus,
  StartOutcome,
  StepOrigin,
  StepState,
  type BridgingResults,
  type GetResultsResponse,
  type GetStatusResponse,
  type PrecomputeSummary,
  type StartPrecomputeResponse,
} from "./gen/headstart/v1/precompute_pb.js";
import { artifactValue, parseJson, type Json, type Tensor } from "./values.js";

// Enums as text: the numbers that generated code has say nothing in a log.
type NameOf<E> = Lowercase<Extract<keyof E, string>>;
/** Where a run is in its life; "unspecified" stands for a value that this client does not know. */
export type Status = NameOf<typeof PrecomputeStatus>;
export type State = NameOf<typeof StepState>;
export type Origin = NameOf<typeof StepOrigin>;
export type Outcome = NameOf<typeof StartOutcome>;
export type Failure = NameOf<typeof FailureReason>;
export type Pending = NameOf<typeof PendingReason>;

/** What a step of a custom pipeline may give. */
export type Value = Json | Tensor | Uint8Array;

/** What a start did. */
export interface Started {
  namespace: string;
  key: string;
  outcome: Outcome;
  status: Status;
  revision: number;
}

/** How one step went. */
export interface StepReport {
  state: State;
  /** Why it failed or was skipped, for people. */
  error: string | undefined;
  /** Why it failed or was skipped, to branch on. */
  failureReason: Failure | undefined;
  elapsedMs: number | undefined;
  attempts: number;
  /** In how many milliseconds it ends: in one case of two, and in nine of ten. */
  estimateMs: { p50: number; p90: number } | undefined;
  origin: Origin;
  /** How far it is with its list, of a step that runs once for each item of one. */
  items: ItemProgress | undefined;
  /** The steps that it can do without and had to. */
  missingNeeds: string[];
}

export interface ItemProgress {
  total: number;
  completed: number;
  failed: number;
  running: number;
}

/** One item that has ended, of a step that has not. */
export interface ItemResult {
  index: number;
  value: Value | undefined;
  error: string | undefined;
  failureReason: Failure | undefined;
}

/** A run without its results. */
export interface Run {
  namespace: string;
  key: string;
  pipeline: string;
  revision: number;
  status: Status;
  /** Whether the run will not change any more. */
  ended: boolean;
  /** Why it failed or was cancelled, for people. */
  error: string | undefined;
  /** Why it failed or was cancelled, to branch on. */
  failureReason: Failure | undefined;
  /** Why no worker takes a pending run. */
  pendingReason: Pending | undefined;
  createdAt: Date | undefined;
  startedAt: Date | undefined;
  completedAt: Date | undefined;
  expiresAt: Date | undefined;
}

/** A run's status, with the state of each step. */
export interface RunStatus extends Run {
  steps: Record<string, State>;
}

/** A run and whatever exists of its results. `S` has the type of each step's value, by name. */
export interface Results<S extends object = Record<string, Value>> extends Run {
  steps: Record<string, StepReport>;
  /** By step, only of completed steps. Values of another form than `S` are not detected. */
  values: Partial<S>;
  /** By step that runs once for each item of a list and has not completed: the items that have ended. */
  partialItems: Record<string, ItemResult[]>;
  /** Of the pipeline "bridging" alone. */
  bridging: BridgingResults | undefined;
}

export function status(value: PrecomputeStatus): Status {
  return (PrecomputeStatus[value] ?? "unspecified").toLowerCase() as Status;
}

const state = (value: StepState): State => (StepState[value] ?? "unspecified").toLowerCase() as State;

const failure = (value: FailureReason): Failure | undefined =>
  value ? ((FailureReason[value] ?? "unspecified").toLowerCase() as Failure) : undefined;
const pending = (value: PendingReason): Pending | undefined =>
  value ? ((PendingReason[value] ?? "unspecified").toLowerCase() as Pending) : undefined;

export const hasEnded = (value: PrecomputeStatus): boolean => value >= PrecomputeStatus.COMPLETED;

export function started(message: StartPrecomputeResponse): Started {
  return {
    namespace: message.namespace,
    key: message.key,
    outcome: (StartOutcome[message.outcome] ?? "unspecified").toLowerCase() as Outcome,
    status: status(message.status),
    revision: Number(message.revision),
  };
}

export function run(message: GetResultsResponse | GetStatusResponse | PrecomputeSummary): Run {
  return {
    namespace: message.namespace,
    key: message.key,
    pipeline: message.pipeline,
    revision: Number(message.revision),
    status: status(message.status),
    ended: hasEnded(message.status),
    error: message.error || undefined,
    failureReason: failure(message.failureReason),
    pendingReason: pending(message.pendingReason),
    createdAt: date(message.createdAt),
    startedAt: date(message.startedAt),
    completedAt: date(message.completedAt),
    expiresAt: date(message.expiresAt),
  };
}

export function runStatus(message: GetStatusResponse): RunStatus {
  const steps = Object.entries(message.steps).map(([name, value]) => [name, state(value)] as const);
  return { ...run(message), steps: Object.fromEntries(steps) };
}

function progress({ total, completed, failed, running }: ItemProgress): ItemProgress {
  return { total, completed, failed, running };
}

function partialItems(message: GetResultsResponse): Record<string, ItemResult[]> {
  const found = new Map<string, ItemResult[]>();
  for (const item of message.items) {
    const failed = failure(item.failureReason);
    const items = found.get(item.step) ?? [];
    items.push({
      index: item.index,
      value: failed ? undefined : parseJson(item.json),
      error: failed ? item.error : undefined,
      failureReason: failed,
    });
    found.set(item.step, items);
  }
  return Object.fromEntries(found);
}

export function results<S extends object>(message: GetResultsResponse): Results<S> {
  const artifacts = message.results.case === "custom" ? message.results.value.artifacts : {};
  const values = Object.entries(artifacts).map(([name, artifact]) => [name, artifactValue(artifact)] as const);
  const steps = Object.entries(message.steps).map(([name, step]): [string, StepReport] => [
    name,
    {
      state: state(step.state),
      error: step.error || undefined,
      failureReason: failure(step.failureReason),
      elapsedMs: step.elapsed && milliseconds(step.elapsed),
      attempts: step.attempts,
      estimateMs:
        step.estimate?.p50 && step.estimate.p90
          ? { p50: milliseconds(step.estimate.p50), p90: milliseconds(step.estimate.p90) }
          : undefined,
      origin: (StepOrigin[step.origin] ?? "unspecified").toLowerCase() as Origin,
      items: step.items && progress(step.items),
      missingNeeds: step.missingNeeds,
    },
  ]);
  return {
    ...run(message),
    steps: Object.fromEntries(steps),
    values: Object.fromEntries(values) as Partial<S>,
    partialItems: partialItems(message),
    bridging: message.results.case === "bridging" ? message.results.value : undefined,
  };
}
