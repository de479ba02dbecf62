import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DpMoeError, type ErrorCode } from '../errors.js'
import type { TypedArray } from './dtype.js'

/** Bytes of a device's tensors. */
export interface MemoryUse {
  /** Held by tensors. */
  readonly live: number
  /** The most that was ever live. */
  readonly peak: number
  /** Free, kept for later tensors. */
  readonly pooled: number
  /** Taken from the system: live and pooled together. */
  readonly reserved: number
}

/** What the CUDA driver sees of this machine. */
export interface CudaDevices {
  /** The library that was loaded. */
  readonly driver: string
  /** The CUDA version that it supports. */
  readonly version: string
  readonly devices: readonly CudaDevice[]
}

export interface CudaDevice {
  readonly name: string
  readonly computeCapability: string
  /** Bytes. */
  readonly memory: number
}

/** What the native addon exports; bindings/ has one function for each. Handles are integers, 0 stands for none. */
export interface Addon {
  openDevice(
    name: string,
    options: { threads?: number | undefined; memoryLimit?: number | undefined; precision?: number | undefined },
  ): { id: number; instructionSet: string; vectorWidth: number; threads: number }
  closeDevice(device: number): void
  cudaDevices(): CudaDevices
  allocate(device: number, dtype: number, count: number): number
  alias(handle: number, offset: number, count: number): number
  free(handle: number): void
  /** As free, for a finalizer: V8 is told that it freed something. */
  collect(handle: number): void
  upload(handle: number, data: TypedArray | Uint16Array, offset: number): void
  fill(handle: number, value: number): void
  copy(to: number, toOffset: number, from: number, fromOffset: number, count: number): void
  /** A bfloat16 tensor comes as its bits. */
  download(handle: number): Promise<TypedArray | Uint16Array>
  synchronize(device: number): Promise<void>
  memory(device: number): MemoryUse
  randomKey(): Uint8Array
  poissonSample(key: Uint8Array, step: number, population: number, sampleRate: number): Int32Array
  setErrorFactory(factory: (code: string, message: string) => Error): void
  signatures(): Record<string, string[]>
  readonly ops: Readonly<Record<string, (device: number, ...fields: (number | boolean)[]) => void>>
}

const require = createRequire(import.meta.url)
const root = fileURLToPath(new URL('../../', import.meta.url))
let loaded: Addon | undefined

/**
 * The native addon: the local build if there is one, else the prebuilt one for this platform.
 * Throws ADDON_MISSING where there is none that this machine can load.
 */
export function addon(): Addon {
  loaded ??= load()
  return loaded
}

function load(): Addon {
  const path = locateAddon()
  let found: Addon
  try {
    found = require(path) as Addon
  } catch (error) {
    throw missing(`${path} does not load here (${error instanceof Error ? error.message : error})`, error)
  }
  found.setErrorFactory((code, message) => new DpMoeError(code as ErrorCode, message))
  return found
}

/** Path of the addon that `addon()` loads. Throws ADDON_MISSING where there is none, or a damaged one. */
export function locateAddon(): string {
  const local = join(root, 'build', 'Release', 'dp-moe.node')
  if (existsSync(local)) return local
  const gypBuild = require('node-gyp-build') as { resolve(folder: string): string }
  let prebuilt: string
  try {
    prebuilt = gypBuild.resolve(root)
  } catch (error) {
    throw missing(`there is none for ${process.platform}-${process.arch}`, error)
  }
  requireIntact(prebuilt)
  return prebuilt
}

/** Loading a truncated file kills the process (SIGBUS), so a prebuilt addon is held to its checksum first. */
function requireIntact(path: string): void {
  const list = join(dirname(path), 'checksums.json')
  if (!existsSync(list)) return
  const expected = (JSON.parse(readFileSync(list, 'utf8')) as Record<string, string>)[basename(path)]
  const actual = createHash('sha256').update(readFileSync(path)).digest('hex')
  if (actual !== expected) throw missing(`${path} is damaged; install dp-moe again`)
}

function missing(reason: string, cause?: unknown): DpMoeError {
  return new DpMoeError(
    'ADDON_MISSING',
    `Expected a native addon, but ${reason}. Build it with: npx dp-moe build (needs cmake and a C++20 compiler)`,
    { cause },
  )
}
