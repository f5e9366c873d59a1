export * from "./client.js";
export { HeadstartError, type ErrorCode, type ErrorDetails, type Violation } from "./errors.js";
export type { ItemProgress, ItemResult, Origin, Outcome, Results, Run, RunStatus, Started, State, Status, StepReport, Value } from "./results.js";
export { inputsText, parseJson, type Input, type Json, type Tensor, type TypedArray } from "./values.js";
export type { Token } from "./token.js";
export type { BridgingResults } from "./gen/headstart/v1/precompute_pb.js";
