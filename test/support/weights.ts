import type { Module } from '../../lib/nn/module.js'

/** Values of parameters by name. */
export type Weights = ReadonlyMap<string, Float64Array>

export async function readWeights(module: Module): Promise<Weights> {
  const entries = [...module.namedParameters()].map(async ([name, parameter]) => {
    return [name, Float64Array.from((await parameter.tensor.data()) as Float32Array)] as const
  })
  return new Map(await Promise.all(entries))
}

export function writeWeights(module: Module, weights: Weights): void {
  for (const [name, parameter] of module.namedParameters()) {
    parameter.tensor.write(Float32Array.from(weights.get(name)!))
  }
}

/** a - b, by name. */
export function difference(a: Weights, b: Weights): Map<string, Float64Array> {
  return new Map([...a].map(([name, values]) => [name, values.map((value, i) => value - b.get(name)![i]!)]))
}

/** L2 norm over all of them together. */
export function norm(weights: Weights): number {
  let sum = 0
  for (const values of weights.values()) for (const value of values) sum += value * value
  return Math.sqrt(sum)
}

/** All values one after another. */
export function flat(weights: Weights): Float64Array {
  return Float64Array.from([...weights.values()].flatMap((values) => [...values]))
}

/** A small generator for test data: multiples of 2^-32 in [0, 1). */
export function uniforms(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
