import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { DpMoeError, invalid } from '../errors.js'
import { bytesOf, readFully, withFileErrors, writeFileAtomically, writeFully } from '../files.js'
import { bfloat16ToFloat32Bits, float16ToFloat32Bits, widenInPlace } from './half-precision.js'
import {
  byteCount,
  formatError,
  PREFIX_BYTES,
  parseHeader,
  parseHeaderLength,
  type SafetensorsDtype,
  type SafetensorsHeader,
  serializeHeader,
  type TensorDescription,
  type TensorEntry,
} from './safetensors-header.js'

export type { SafetensorsDtype, TensorDescription, TensorEntry } from './safetensors-header.js'

/** Hashing runs on the event loop's thread: a few milliseconds per piece. */
const HASHED_PIECE_BYTES = 4 * 1024 * 1024

/** A safetensors file open for reading. The header is in memory; tensors are read when asked for, each by its offset. */
export class SafetensorsFile {
  readonly path: string
  readonly metadata: Readonly<Record<string, string>>
  /** By name, in the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>
  readonly #handle: FileHandle
  readonly #dataStart: number

  private constructor(path: string, handle: FileHandle, header: SafetensorsHeader, dataStart: number) {
    this.path = path
    this.metadata = header.metadata
    this.tensors = header.tensors
    this.#handle = handle
    this.#dataStart = dataStart
  }

  /**
   * Opens a file and validates its header, so that every later read stays inside the file.
   *
   * @throws DpMoeError MODEL_FORMAT for a file that is damaged or something else; FILE_NOT_FOUND, FILE_ACCESS
   */
  static async open(path: string): Promise<SafetensorsFile> {
    return withFileErrors('read', path, async () => {
      const handle = await open(path, 'r')
      try {
        const { size } = await handle.stat()
        const prefix = new Uint8Array(PREFIX_BYTES)
        const prefixBytes = await readFully(handle, prefix, 0)
        const length = parseHeaderLength(path, prefix.subarray(0, prefixBytes), size)
        const bytes = await readExactly(handle, path, length, PREFIX_BYTES)
        const dataStart = PREFIX_BYTES + length
        return new SafetensorsFile(path, handle, parseHeader(path, bytes, size - dataStart), dataStart)
      } catch (error) {
        await handle.close()
        throw error
      }
    })
  }

  /**
   * Reads a tensor as float32. F32 is read straight into the returned array; BF16 and F16 are widened in its memory.
   *
   * @param memory where the array is to lie, at least 4 bytes per element; default: memory of its own
   * @returns row-major values, as many as the shape has elements
   * @throws DpMoeError MODEL_FORMAT when there is no such tensor or its dtype is another
   */
  async readFloat32(name: string, memory?: ArrayBuffer): Promise<Float32Array> {
    const { dtype, shape, begin, end } = this.#entry(name)
    const bytes = end - begin
    if (dtype === 'F32') {
      const values = new Float32Array(memory ?? new ArrayBuffer(bytes), 0, bytes / 4)
      await this.#fill(bytesOf(values), begin)
      return values
    }
    if (dtype !== 'BF16' && dtype !== 'F16') {
      throw new DpMoeError(
        'MODEL_FORMAT',
        `Expected F32, BF16 or F16 for tensor ${JSON.stringify(name)} [${shape}] of ${this.path}, got ${dtype}. ` +
          'Convert the model to one of these first',
      )
    }
    const buffer = memory ?? new ArrayBuffer(2 * bytes)
    await this.#fill(new Uint8Array(buffer, bytes, bytes), begin)
    return widenInPlace(buffer, bytes / 2, dtype === 'BF16' ? bfloat16ToFloat32Bits : float16ToFloat32Bits)
  }

  /**
   * Reads a tensor of a model as float32.
   *
   * @throws DpMoeError MODEL_FORMAT where a value is not finite, with how many are not; else as `readFloat32`
   */
  async readWeights(name: string, memory?: ArrayBuffer): Promise<Float32Array> {
    const values = await this.readFloat32(name, memory)
    requireFinite(values, name, this.path)
    return values
  }

  /** Reads a tensor's bytes as they are stored (little-endian), whatever its dtype. */
  async readBytes(name: string): Promise<Uint8Array> {
    const { begin, end } = this.#entry(name)
    const bytes = new Uint8Array(end - begin)
    await this.#fill(bytes, begin)
    return bytes
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #entry(name: string): TensorEntry {
    const entry = this.tensors.get(name)
    if (entry === undefined) {
      const known = [...this.tensors.keys()].slice(0, 5).join(', ')
      throw new DpMoeError(
        'MODEL_FORMAT',
        `${this.path} holds no tensor ${JSON.stringify(name)} (it holds ${this.tensors.size}: ${known}, ...). ` +
          'Check that the model and its config.json belong together',
      )
    }
    return entry
  }

  async #fill(bytes: Uint8Array, begin: number): Promise<void> {
    await withFileErrors('read', this.path, async () => {
      const read = await readFully(this.#handle, bytes, this.#dataStart + begin)
      if (read < bytes.byteLength) throw formatError(this.path, 'it became shorter while it was read')
    })
  }
}

/** One pass over the exponents; what is wrong is counted only where something is. */
function requireFinite(values: Float32Array, name: string, path: string): void {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  let wrong = 0
  for (let i = 0; i < words.length; i++) if ((words[i]! & 0x7f800000) === 0x7f800000) wrong++
  if (wrong === 0) return
  const missing = values.reduce((count, value) => count + Number(Number.isNaN(value)), 0)
  const kinds = [missing > 0 ? [`NaN: ${missing}`] : [], wrong > missing ? [`infinite: ${wrong - missing}`] : []].flat()
  throw new DpMoeError(
    'MODEL_FORMAT',
    `${path}: ${name}: ${wrong} of ${values.length} values are not finite (${kinds.join(', ')}). Its training diverged, or the file ` +
      'is damaged; take another checkpoint',
  )
}

async function readExactly(handle: FileHandle, path: string, length: number, position: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  if ((await readFully(handle, bytes, position)) < length)
    throw formatError(path, 'it became shorter while it was read')
  return bytes
}

/** A tensor's values: float32, or bytes in the dtype's own little-endian form. */
export type TensorData = Float32Array | Uint8Array

/** A tensor to write. A function as `data` is called when its turn comes, so only one tensor need be in memory. */
export interface TensorSource extends TensorDescription {
  readonly data: TensorData | (() => TensorData | Promise<TensorData>)
}

/** Size and hash of a file that was written. */
export interface WrittenFile {
  readonly byteLength: number
  /** SHA-256 of the whole file, hex. */
  readonly sha256: string
}

/**
 * Writes a safetensors file, tensor by tensor and atomically: a crash or a full disk leaves what was there before.
 *
 * @param metadata text that travels in the header; the default is what Hugging Face asks for
 * @throws TypeError when a tensor's data does not fit its dtype and shape
 * @throws DpMoeError DISK_FULL, FILE_ACCESS, FILE_NOT_FOUND
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorSource>,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Promise<WrittenFile> {
  const { bytes: header, order } = serializeHeader(tensors, metadata)
  const hash = createHash('sha256')
  let position = 0
  await writeFileAtomically(path, async (handle) => {
    const append = async (bytes: Uint8Array) => {
      for (let done = 0; done < bytes.byteLength; done += HASHED_PIECE_BYTES) {
        const piece = bytes.subarray(done, done + HASHED_PIECE_BYTES)
        hash.update(piece)
        await writeFully(handle, piece, position)
        position += piece.byteLength
      }
    }
    await append(header)
    for (const name of order) {
      const source = tensors.get(name)!
      await append(checkedBytes(name, source, typeof source.data === 'function' ? await source.data() : source.data))
    }
  })
  return { byteLength: position, sha256: hash.digest('hex') }
}

function checkedBytes(name: string, { dtype, shape }: TensorDescription, data: TensorData): Uint8Array {
  const described = `${dtype} [${shape}]`
  if (data instanceof Float32Array && dtype !== 'F32') {
    throw new TypeError(invalid(`tensor ${name}, ${described}`, `bytes of ${dtype}`, 'a Float32Array'))
  }
  const expected = byteCount(dtype as SafetensorsDtype, shape)
  if (data.byteLength !== expected) {
    throw new TypeError(invalid(`tensor ${name}, ${described}`, `${expected} bytes`, data.byteLength))
  }
  return bytesOf(data)
}
