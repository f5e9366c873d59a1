import { HeadstartError } from "./errors.js";
import type { Artifact, Tensor as TensorMessage } from "./gen/headstart/v1/precompute_pb.js";

/** What inputs may hold. `undefined` in an object is left out; `toJSON` is called, as of a Date. */
export type Input =
  | string
  | number
  | bigint
  | boolean
  | null
  | undefined
  | readonly Input[]
  | { readonly [name: string]: Input }
  | { toJSON(key?: string): unknown };

/** JSON as it was sent: whole numbers beyond 2^53 are bigint, all others number. */
export type Json = string | number | bigint | boolean | null | Json[] | { [name: string]: Json };

/** An array of numbers. */
export interface Tensor {
  /** The values' type, by numpy's name. */
  dtype: string;
  /** The length of each dimension, outermost first. */
  shape: number[];
  /**
   * The values in row-major order. bool is 0 or 1, float16 is widened, and a complex number is its
   * real part, then its imaginary part.
   */
  data: TypedArray;
}

export type TypedArray =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float32Array
  | Float64Array;

const ARRAYS = {
  bool: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  float32: Float32Array,
  float64: Float64Array,
  complex64: Float32Array,
  complex128: Float64Array,
} as const;

/**
 * Write inputs as JSON text, every whole number exactly. Unlike JSON.stringify it takes bigint, and
 * refuses what would arrive as another value: NaN, infinity, and whole numbers that were rounded.
 */
export function inputsText(inputs: Input): string {
  return write(inputs, "custom.inputs");
}

function write(value: unknown, path: string): string {
  switch (typeof value) {
    case "string":
    case "boolean":
      return JSON.stringify(value);
    case "bigint":
      return value.toString();
    case "number": {
      if (!Number.isFinite(value)) throw refused(path, `must be finite, is ${value}`);
      const text = JSON.stringify(value);
      if (!Number.isSafeInteger(value) && /^-?\d+$/.test(text)) {
        throw refused(path, `must be a bigint, such as ${text}n: a number is rounded from 2^53 on`);
      }
      return text;
    }
    case "object":
      if (value === null) return "null";
      if ("toJSON" in value && typeof value.toJSON === "function") return write(value.toJSON(), path);
      if (Array.isArray(value)) {
        return `[${value.map((each, i) => write(each ?? null, `${path}.${i}`)).join(",")}]`;
      }
      return `{${Object.entries(value)
        .filter(([, each]) => each !== undefined)
        .map(([name, each]) => `${JSON.stringify(name)}:${write(each, `${path}.${name}`)}`)
        .join(",")}}`;
    default:
      throw refused(path, `must be JSON, is a ${typeof value}`);
  }
}

function refused(field: string, description: string): HeadstartError {
  return new HeadstartError("INVALID_ARGUMENT", "", { violations: [{ field, description }] });
}

// Strings first, so that digits inside of them are not taken for numbers.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const LONG = /\d{16}/;
const WHOLE = /^-?\d{16,}$/;

/** Read JSON text; whole numbers that a number does not hold exactly become bigint. */
export function parseJson(text: string): Json {
  if (!LONG.test(text)) return JSON.parse(text) as Json;
  const mark = `int:${Math.random()}:`;
  let found = false;
  const marked = text.replace(TOKENS, (token) => {
    if (!WHOLE.test(token) || Number.isSafeInteger(Number(token))) return token;
    found = true;
    return `"${mark}${token}"`;
  });
  if (!found) return JSON.parse(text) as Json;
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  ) as Json;
}

/** Return what a step of a custom pipeline returned: JSON, a tensor, or bytes. */
export function artifactValue({ value }: Artifact): Json | Tensor | Uint8Array | undefined {
  switch (value.case) {
    case "json":
      return parseJson(value.value);
    case "tensor":
      return tensor(value.value);
    case "data":
      return value.value;
    default:
      return undefined; // a form that this client does not know
  }
}

/** Return an array over the message's bytes; they are copied only where they are not aligned. */
export function tensor({ dtype, shape, data }: TensorMessage): Tensor {
  const lengths = shape.map(Number);
  if (dtype === "float16") return { dtype, shape: lengths, data: halves(data) };
  if (!Object.hasOwn(ARRAYS, dtype)) throw new HeadstartError("UNKNOWN", `a tensor has the unknown dtype "${dtype}"`);
  const array = ARRAYS[dtype as keyof typeof ARRAYS];
  const { buffer, byteOffset, byteLength } = data.byteOffset % array.BYTES_PER_ELEMENT ? data.slice() : data;
  const values = new array(buffer as ArrayBuffer, byteOffset, byteLength / array.BYTES_PER_ELEMENT);
  return { dtype, shape: lengths, data: values };
}

/** Widen float16, for which not every engine has an array. */
function halves(data: Uint8Array): Float32Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Float32Array.from({ length: data.byteLength / 2 }, (_, i) => {
    const bits = view.getUint16(2 * i, true);
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}
