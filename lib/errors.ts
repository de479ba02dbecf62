/** What went wrong, for programs: every error this package throws on purpose carries one of these as `code`. */
export type ErrorCode =
  | 'INVALID_ARGUMENT' // a value outside what a function accepts
  | 'SHAPE_MISMATCH' // tensors whose shapes or dtypes do not fit together
  | 'UNIT_MIXING' // an op that would mix rows of different privacy units
  | 'NOT_PRIVATE' // a setting that couples units, refused in private training
  | 'DISPOSED' // a tensor or device used after it was freed
  | 'ENGINE' // a failure inside the native engine
  | 'OUT_OF_MEMORY'
  | 'ADDON_MISSING' // no native addon for this platform
  | 'BACKEND_UNAVAILABLE'
  | 'DEVICE_LOST' // the driver gave a device up, with its tensors; only a new process gets it back
  | 'FILE_NOT_FOUND'
  | 'FILE_EXISTS'
  | 'FILE_ACCESS' // permission, read-only folder
  | 'DISK_FULL'
  | 'NETWORK' // the hub cannot be reached, or a download broke off
  | 'DATA_FORMAT' // a data file that cannot be read as what it claims to be
  | 'MODEL_FORMAT' // a config.json or safetensors file that is damaged or foreign
  | 'LEDGER_DAMAGED'
  | 'CHECKPOINT_DAMAGED'
  | 'BUDGET_EXCEEDED'
  | 'ABORTED'
  | 'USAGE' // command-line flags that are wrong in themselves

/** An error thrown on purpose: its message says what was expected, what came, and what to do. */
export class DpMoeError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'DpMoeError'
    this.code = code
  }
}

/** A number outside its allowed range; names the parameter, the value and the range. */
export class OutOfRangeError extends RangeError {
  readonly code: ErrorCode = 'INVALID_ARGUMENT'

  constructor(parameter: string, expected: string, actual: unknown) {
    super(invalid(parameter, expected, actual))
    this.name = 'OutOfRangeError'
  }
}

/** The one sentence for a bad argument: what was expected, for which parameter, what came. */
export function invalid(parameter: string, expected: string, actual: unknown): string {
  const shown = typeof actual === 'string' ? `'${actual}'` : String(actual)
  return `Expected ${expected} for ${parameter}, got ${shown}`
}
