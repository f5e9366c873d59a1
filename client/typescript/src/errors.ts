import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Error as ItemError } from "./gen/headstart/v1/precompute_pb.js";
import { milliseconds } from "./durations.js";

/** A gRPC status code, as the contract spells it. */
export type ErrorCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

// By number: Connect's enum has other names, such as "Canceled".
const CODES: readonly (ErrorCode | undefined)[] = [
  undefined,
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

/** One rule that one field of a request breaks. */
export interface Violation {
  /** The field's path, such as "custom.inputs.text". */
  field: string;
  /** What it must be. */
  description: string;
}

/** What an error has beside its code and message. */
export interface ErrorDetails {
  violations?: readonly Violation[];
  retryAfterMs?: number;
  metadata?: Readonly<Record<string, string>>;
  cause?: unknown;
}

/** Every error of a call. Branch on `code`; the message is for people. */
export class HeadstartError extends Error {
  override readonly name = "HeadstartError";
  /** The status code. UNAVAILABLE also stands for a connection that broke. */
  readonly code: ErrorCode;
  /** With INVALID_ARGUMENT: every rule that was broken. */
  readonly violations: readonly Violation[];
  /** With RESOURCE_EXHAUSTED or UNAVAILABLE: the least pause before a retry, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** Of ErrorInfo: the "missing" verb of a refusal, or the "error_id" in the server's log. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const violations = details.violations ?? [];
    const listed = violations.map(({ field, description }) => [field, description].filter(Boolean).join(": "));
    super(message || listed.join("; "), { cause: details.cause }); // the server's message lists them
    this.code = code;
    this.violations = violations;
    this.retryAfterMs = details.retryAfterMs;
    this.metadata = details.metadata ?? {};
  }

  /** Whether the same call may succeed when it is repeated; every method may be repeated. */
  get retryable(): boolean {
    return this.code === "UNAVAILABLE" || this.code === "CANCELLED";
  }

  /** Return the error for anything that a call of Connect has thrown. */
  static from(reason: unknown): HeadstartError {
    if (reason instanceof HeadstartError) return reason;
    const error = ConnectError.from(reason);
    if (isBroken(error)) return new HeadstartError("UNAVAILABLE", error.rawMessage, { cause: reason });
    if (!error.isWireError && error.rawMessage.startsWith("serialize ")) {
      return new HeadstartError("INVALID_ARGUMENT", error.rawMessage, { cause: reason });
    }
    const violations: Violation[] = error
      .findDetails(BadRequestSchema)
      .flatMap((bad) => bad.fieldViolations.map(({ field, description }) => ({ field, description })));
    const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    const metadata = error.findDetails(ErrorInfoSchema)[0]?.metadata;
    return new HeadstartError(CODES[error.code] ?? "UNKNOWN", error.rawMessage, {
      violations,
      ...(delay ? { retryAfterMs: milliseconds(delay) } : {}),
      ...(metadata ? { metadata } : {}),
      cause: reason,
    });
  }

  /** Return the error of one item of a batch. */
  static ofItem(error: ItemError): HeadstartError {
    const violations: Violation[] = [];
    let retryAfterMs: number | undefined;
    let metadata: Record<string, string> = {};
    for (const detail of error.details) {
      const bad = anyUnpack(detail, BadRequestSchema);
      for (const { field, description } of bad?.fieldViolations ?? []) violations.push({ field, description });
      const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
      if (delay) retryAfterMs = milliseconds(delay);
      metadata = anyUnpack(detail, ErrorInfoSchema)?.metadata ?? metadata;
    }
    return new HeadstartError(CODES[error.code] ?? "UNKNOWN", error.message, {
      violations,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      metadata,
    });
  }
}

/** Whether the connection failed: Connect has no code of its own for most such errors. */
function isBroken({ code, rawMessage, cause, isWireError }: ConnectError): boolean {
  if (isWireError || /^(serialize|parse) /.test(rawMessage)) return false;
  if (code === Code.InvalidArgument || code === Code.Unknown) {
    if (/missing (EndStreamResponse|request message)/.test(rawMessage)) return true;
  }
  return code === Code.Aborted || code === Code.Internal || (code === Code.Unknown && isOfNetwork(cause));
}

/** Whether `fetch` or the body of its response failed: browsers throw a TypeError for both. */
function isOfNetwork(cause: unknown): boolean {
  return cause instanceof TypeError && /fetch|network|load failed|terminated|input stream/i.test(cause.message);
}
