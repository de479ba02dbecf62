import { addon } from './addon.js'

/** 32 bytes from the operating system's generator: a key for sampling and noise. */
export function randomKey(): Uint8Array {
  return addon().randomKey()
}

/**
 * Positions u in [0, population), rising, that are in the Poisson sample of a step: those with
 * ChaCha20(key; step, u) < sampleRate. A pure function: the same on every machine and in every process.
 */
export function poissonSample(key: Uint8Array, step: number, population: number, sampleRate: number): Int32Array {
  return addon().poissonSample(key, step, population, sampleRate)
}
