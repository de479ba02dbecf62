import { createHash, createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Device } from '../engine/device.js'
import { randomKey } from '../engine/random.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { fingerprint } from './fingerprint.js'

/**
 * The secret of a run: sampling, noise and dropout are ChaCha20 streams under it.
 *
 * | source | private | replays after a crash |
 * |---|---|---|
 * | `os` | yes | no: it lives in memory only |
 * | `file` | yes, while the file stays secret | yes |
 * | `seed` | no: whoever knows the seed can subtract the noise | yes |
 */
export interface RunKey {
  readonly source: 'os' | 'file' | 'seed'
  /** 32 bytes; never written into a run folder. */
  readonly bytes: Uint8Array
}

/** A fresh key from the operating system. */
export function osKey(): RunKey {
  return { source: 'os', bytes: randomKey() }
}

/** A key derived from a seed, for tests and reproduction: what is trained with it is not private. */
export function seedKey(seed: number | string): RunKey {
  return { source: 'seed', bytes: createHash('sha256').update(`dp-moe seed ${seed}`).digest() }
}

/** A key of exactly 32 bytes (or 64 hexadecimal digits) kept in a file outside the run folder. */
export function fileKey(path: string): RunKey {
  let content: Buffer
  try {
    content = readFileSync(path)
  } catch (error) {
    throw new DpMoeError('FILE_NOT_FOUND', `${path}: cannot read the key file; make one with 32 random bytes`, {
      cause: error,
    })
  }
  const text = content.toString('latin1').trim()
  const bytes = content.length === 32 ? content : /^[0-9a-fA-F]{64}$/.test(text) ? Buffer.from(text, 'hex') : undefined
  if (!bytes) {
    throw new DpMoeError(
      'DATA_FORMAT',
      `${path}: expected a key of 32 bytes or 64 hexadecimal digits, got ${content.length} bytes; ` +
        'make one with: head -c 32 /dev/urandom > key',
    )
  }
  return { source: 'file', bytes: new Uint8Array(bytes) }
}

/** The key of one of several trainings under the same run key: their steps have the same numbers and must not share noise. */
export function trainingKey(key: RunKey, training: number): RunKey {
  if (training === 0) return key
  return { source: key.source, bytes: createHmac('sha256', key.bytes).update(`dp-moe training ${training}`).digest() }
}

/**
 * The key that a run draws from: that of a file is mixed with all that decides what the run does, its data and the kernels
 * it runs on included. Two runs with one key file have the same noise only where everything else is the same too, and so
 * the same weights: under equal noise, the difference of two releases would show their gradients.
 *
 * @param run plain data
 */
export function keyOfRun(key: RunKey, run: unknown): RunKey {
  return key.source === 'file' ? { source: 'file', bytes: Buffer.from(fingerprint(key.bytes, { run }), 'hex') } : key
}

/** The key as the native ops take it, int32 [8], little endian. */
export function keyTensor(device: Device, key: RunKey): Tensor {
  const view = new DataView(key.bytes.buffer, key.bytes.byteOffset, 32)
  const words = Int32Array.from({ length: 8 }, (_, word) => view.getInt32(4 * word, true))
  return device.keep(device.tensor(words, [8], 'int32'))
}
