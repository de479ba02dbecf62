// Layers of lib/nn written out in float64 from their formulas, on the rows of one unit. Nothing of the library is used.
import erfc from '@stdlib/math-base-special-erfc'

export type Rows = readonly (readonly number[])[]

/** Values of a parameter by its name in the module. */
export type Get = (name: string) => Float64Array

export const activations = {
  none: (x: number) => x,
  relu: (x: number) => Math.max(0, x),
  gelu: (x: number) => (x * erfc(-x / Math.SQRT2)) / 2,
  geluTanh: (x: number) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  tanh: (x: number) => Math.tanh(x),
}

export type ActivationName = keyof typeof activations

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

/** W x + b with the `index`-th matrix [outputs, inputs] of a stack. */
export function affine(x: readonly number[], weight: Float64Array, bias?: Float64Array, index = 0, outputs?: number) {
  const inputs = x.length
  const count = outputs ?? weight.length / inputs
  return Array.from({ length: count }, (_, o) => {
    const row = (index * count + o) * inputs
    return dot(weight.subarray(row, row + inputs), x) + (bias ? bias[index * count + o]! : 0)
  })
}

export function layerNorm(x: readonly number[], weight: Float64Array, bias?: Float64Array, epsilon = 1e-5): number[] {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + epsilon)) * weight[i]! + (bias ? bias[i]! : 0))
}

export function rmsNorm(x: readonly number[], weight: Float64Array, epsilon = 1e-6): number[] {
  const square = dot(x, x) / x.length
  return x.map((value, i) => (value / Math.sqrt(square + epsilon)) * weight[i]!)
}

export function softmax(values: readonly number[]): number[] {
  const top = Math.max(...values)
  const exponentials = values.map((value) => Math.exp(value - top))
  const total = exponentials.reduce((sum, value) => sum + value, 0)
  return exponentials.map((value) => value / total)
}

export function logSumExp(values: readonly number[]): number {
  const top = Math.max(...values)
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0))
}

export interface AttentionShape {
  heads: number
  keyValueHeads?: number
  causal?: boolean
  scale?: number
}

export function attention(q: Rows, k: Rows, v: Rows, { heads, keyValueHeads = heads, causal, scale }: AttentionShape) {
  const size = (q[0]?.length ?? 0) / heads
  return q.map((row, s) =>
    Array.from({ length: heads }, (_, head) => {
      const shared = Math.floor(head / (heads / keyValueHeads))
      const part = (values: readonly number[], index: number) => values.slice(index * size, (index + 1) * size)
      const seen = causal ? s + 1 : k.length
      const scores = k
        .slice(0, seen)
        .map((key) => dot(part(row, head), part(key, shared)) * (scale ?? 1 / Math.sqrt(size)))
      const weights = softmax(scores)
      return Array.from({ length: size }, (_, j) =>
        weights.reduce((sum, weight, t) => sum + weight * v[t]![shared * size + j]!, 0),
      )
    }).flat(),
  )
}

export interface MixtureShape {
  numExperts: number
  expertsPerToken?: number
  activation?: ActivationName
  gated?: boolean
  normalizeGates?: boolean
  capacityPerSequence?: number
  balanceLoss?: number
  zLoss?: number
}

/** A mixture of experts on one unit: its rows and its router losses. `routed` are the router's inputs where jitter acts. */
export function mixture(x: Rows, get: Get, has: (name: string) => boolean, shape: MixtureShape, routed: Rows = x) {
  const { numExperts, expertsPerToken = 1, gated = false, capacityPerSequence = 0 } = shape
  const act = activations[shape.activation ?? (gated ? 'silu' : 'relu')]
  const optional = (name: string) => (has(name) ? get(name) : undefined)
  const hiddenSize = x[0]?.length ?? 1
  const inner = get('up').length / numExperts / hiddenSize
  const logits = routed.map((row) => affine(row, get('router.weight'), optional('router.bias')))
  const probabilities = logits.map(softmax)
  const taken = new Array<number>(numExperts).fill(0)
  const chosen = new Array<number>(numExperts).fill(0)
  const y = x.map((row, s) => {
    const p = probabilities[s]!
    const order = p.map((_, e) => e).sort((a, b) => p[b]! - p[a]! || a - b)
    const experts = order.slice(0, expertsPerToken)
    const sum = shape.normalizeGates ? experts.reduce((total, e) => total + p[e]!, 0) : 1
    const out = new Array<number>(hiddenSize).fill(0)
    for (const e of experts) {
      chosen[e]!++
      if (capacityPerSequence > 0 && taken[e]! >= capacityPerSequence) continue
      taken[e]!++
      const up = affine(row, get('up'), optional('upBias'), e, inner)
      const gate = gated ? affine(row, get('gate'), undefined, e, inner) : undefined
      const hidden = gate ? up.map((value, i) => act(gate[i]!) * value) : up.map(act)
      const result = affine(hidden, get('down'), optional('downBias'), e, hiddenSize)
      result.forEach((value, i) => {
        out[i]! += (p[e]! / sum) * value
      })
    }
    return out
  })
  const n = Math.max(1, x.length)
  let loss = 0
  for (let e = 0; e < numExperts; e++) {
    const mean = probabilities.reduce((sum, p) => sum + p[e]!, 0) / n
    loss += ((shape.balanceLoss ?? 0.01) * numExperts * (chosen[e]! / n) * mean) / expertsPerToken
  }
  loss += ((shape.zLoss ?? 0) * logits.reduce((sum, row) => sum + logSumExp(row) ** 2, 0)) / n
  return { y, loss: x.length > 0 ? loss : 0 }
}
