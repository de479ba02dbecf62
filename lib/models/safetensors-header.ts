import { DpMoeError, invalid } from '../errors.js'
import { findDuplicateKey } from './json-duplicates.js'

/** Bytes per element of every dtype the format knows. */
export const DTYPE_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const

/** A safetensors dtype, as its files spell it. */
export type SafetensorsDtype = keyof typeof DTYPE_BYTES

/** Where a tensor lies: `begin` and `end` count bytes from the start of the data, which follows the header. */
export interface TensorEntry {
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
  readonly begin: number
  readonly end: number
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>
  /** By name, in the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>
}

/** The format's own limit on the header; also what keeps a hostile length from asking for memory. */
export const MAX_HEADER_BYTES = 100_000_000

/** Length of the header's length, a little-endian 64-bit integer at the start of the file. */
export const PREFIX_BYTES = 8

const METADATA = '__metadata__'

/** The one error for a file that is not the safetensors it claims to be. */
export function formatError(path: string, what: string, options?: ErrorOptions): DpMoeError {
  return new DpMoeError(
    'MODEL_FORMAT',
    `${path} is not a valid safetensors file: ${what}. Save or download the model again`,
    options,
  )
}

/**
 * Reads the header's length from the first bytes of a file.
 *
 * @param prefix the first 8 bytes, fewer when the file is shorter
 * @throws DpMoeError MODEL_FORMAT when the header cannot fit into `fileBytes`
 */
export function parseHeaderLength(path: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.byteLength < PREFIX_BYTES) {
    throw formatError(path, `it has ${fileBytes} bytes, and ${PREFIX_BYTES} hold the header's length alone`)
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true)
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw formatError(path, `it states a header of ${length} bytes, and the format allows ${MAX_HEADER_BYTES}`)
  }
  if (length > BigInt(fileBytes - PREFIX_BYTES)) {
    throw formatError(
      path,
      `it states a header of ${length} bytes, and ${fileBytes - PREFIX_BYTES} follow (truncated?)`,
    )
  }
  return Number(length)
}

/**
 * Parses and validates a header: every tensor's dtype, shape and byte count, and that the tensors cover the data
 * exactly, without overlap or gap.
 *
 * | header | result |
 * |---|---|
 * | no tensors, no data | accepted, empty |
 * | a shape with a 0 | accepted, no bytes |
 * | shape [] | a scalar, one element |
 * | overlapping, missing, reversed or out-of-range offsets | MODEL_FORMAT |
 * | a name given twice, unknown dtype, other JSON, bad UTF-8 | MODEL_FORMAT |
 *
 * @param dataBytes bytes after the header
 * @throws DpMoeError MODEL_FORMAT
 */
export function parseHeader(path: string, bytes: Uint8Array, dataBytes: number): SafetensorsHeader {
  const json = parseJson(path, bytes)
  let metadata: Record<string, string> = {}
  const entries: [string, TensorEntry][] = []
  for (const [name, value] of Object.entries(json)) {
    if (name === METADATA) metadata = parseMetadata(path, value)
    else entries.push([name, parseEntry(path, name, value, dataBytes)])
  }
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  checkCoverage(path, entries, dataBytes)
  return { metadata, tensors: new Map(entries) }
}

function parseJson(path: string, bytes: Uint8Array): object {
  if (bytes[0] !== 0x7b) throw formatError(path, 'its header is not a JSON object')
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    throw formatError(path, 'its header is not UTF-8 text', { cause: error })
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw formatError(path, 'its header is not JSON', { cause: error })
  }
  const duplicate = findDuplicateKey(text)
  if (duplicate !== undefined) throw formatError(path, `its header holds the name ${JSON.stringify(duplicate)} twice`)
  return json as object
}

function parseMetadata(path: string, value: unknown): Record<string, string> {
  if (!isObject(value) || !Object.values(value).every((entry) => typeof entry === 'string')) {
    throw formatError(path, `its ${METADATA} is not a map from text to text`)
  }
  return value as Record<string, string>
}

function parseEntry(path: string, name: string, value: unknown, dataBytes: number): TensorEntry {
  const tensor = `tensor ${JSON.stringify(name)}`
  if (!isObject(value)) throw formatError(path, `${tensor} is not described by an object (another kind of JSON?)`)
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw formatError(path, `${tensor} has the unknown dtype ${JSON.stringify(dtype)}`)
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw formatError(path, `the shape of ${tensor} is not a list of whole numbers`)
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw formatError(path, `the data_offsets of ${tensor} are not two whole numbers`)
  }
  const [begin, end] = offsets as [number, number]
  if (begin > end) throw formatError(path, `${tensor} ends (byte ${end}) before it begins (byte ${begin})`)
  if (end > dataBytes) {
    throw formatError(path, `${tensor} ends at byte ${end} of the data, which has ${dataBytes} bytes (truncated?)`)
  }
  const expected = byteCount(dtype as SafetensorsDtype, shape)
  if (expected !== end - begin) {
    throw formatError(
      path,
      `${tensor}, ${dtype} [${shape}], needs ${expected} bytes, and its offsets give ${end - begin}`,
    )
  }
  return { dtype: dtype as SafetensorsDtype, shape, begin, end }
}

function checkCoverage(path: string, entries: readonly [string, TensorEntry][], dataBytes: number): void {
  let position = 0
  for (const [name, { begin, end }] of entries) {
    if (begin !== position) {
      const what = begin < position ? 'overlaps the tensor before it' : 'leaves a gap after the tensor before it'
      throw formatError(path, `tensor ${JSON.stringify(name)} at byte ${begin} ${what} (which ends at ${position})`)
    }
    position = end
  }
  if (position !== dataBytes) {
    throw formatError(path, `its tensors end at byte ${position}, and the data has ${dataBytes} bytes`)
  }
}

/** What is to be written: a name with its dtype and shape. */
export interface TensorDescription {
  readonly dtype: SafetensorsDtype
  readonly shape: readonly number[]
}

/**
 * Lays tensors out and writes the prefix and header. Wide dtypes come first, and the header is padded with spaces to a
 * multiple of 8 bytes, so that every tensor is aligned to its element size in a mapped file.
 *
 * @returns the first bytes of the file, and the names in the order their data follows
 * @throws TypeError on a name the format reserves or a shape that is none
 */
export function serializeHeader(
  tensors: ReadonlyMap<string, TensorDescription>,
  metadata: Readonly<Record<string, string>>,
): { bytes: Uint8Array; order: string[] } {
  const widths = (name: string) => DTYPE_BYTES[tensors.get(name)!.dtype]
  const order = [...tensors.keys()].sort((a, b) => widths(b) - widths(a) || (a < b ? -1 : 1))
  const fields = [`${JSON.stringify(METADATA)}:${JSON.stringify(metadata)}`]
  let position = 0
  for (const name of order) {
    const { dtype, shape } = tensors.get(name)!
    if (name === METADATA) throw new TypeError(invalid('tensor name', 'any name the format does not reserve', name))
    if (!shape.every(isCount)) throw new TypeError(invalid(`shape of ${name}`, 'whole numbers', `[${shape}]`))
    const end = position + byteCount(dtype, shape)
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [position, end] })}`)
    position = end
  }
  const json = Buffer.from(`{${fields.join(',')}}`)
  const length = Math.ceil(json.byteLength / 8) * 8
  if (length > MAX_HEADER_BYTES)
    throw new TypeError(invalid('tensors', 'a header the format can hold', `${length} bytes`))
  const bytes = new Uint8Array(PREFIX_BYTES + length).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  bytes.set(json, PREFIX_BYTES)
  return { bytes, order }
}

/** Bytes of a tensor; not a safe integer when its shape multiplies beyond what any file holds. */
export function byteCount(dtype: SafetensorsDtype, shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype])
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
