import type { SwitchClassifierConfig } from '../../lib/models/switch-classifier.js'

/** Parameters by name, float64, and their shapes. */
export type Values = Map<string, { shape: readonly number[]; data: Float64Array }>

/** The loss of one example, written out in float64 from the formulas; nothing of the library is used. */
export function referenceLoss(
  config: SwitchClassifierConfig,
  values: Values,
  ids: readonly number[],
  label: number,
): number {
  const get = (name: string) => values.get(name)!.data
  const { hiddenSize: d, numAttentionHeads, numLayers, sparseEvery = 2, balanceLoss = 0.01 } = config
  const n = ids.length
  let x = ids.map((id, position) =>
    Array.from(
      { length: d },
      (_, j) => get('embedding.weight')[id * d + j]! + get('position.weight')[position * d + j]!,
    ),
  )
  const affine = (row: number[], name: string, inputs: number, outputs: number, offset = 0) =>
    Array.from({ length: outputs }, (_, o) => {
      let sum = get(`${name}.bias`)[offset * outputs + o]!
      for (let i = 0; i < inputs; i++) sum += get(`${name}.weight`)[(offset * outputs + o) * inputs + i]! * row[i]!
      return sum
    })
  const norm = (row: number[], name: string) => {
    const mean = row.reduce((s, v) => s + v, 0) / d
    const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / d
    return row.map(
      (v, j) => ((v - mean) / Math.sqrt(variance + 1e-5)) * get(`${name}.weight`)[j]! + get(`${name}.bias`)[j]!,
    )
  }
  let routerLoss = 0
  for (let layer = 0; layer < numLayers; layer++) {
    const at = `layers.${layer}`
    const normed = x.map((row) => norm(row, `${at}.attentionNorm`))
    const [q, k, v] = ['query', 'key', 'value'].map((part) =>
      normed.map((row) => affine(row, `${at}.attention.${part}`, d, d)),
    )
    const size = d / numAttentionHeads
    const mixed = x.map(() => new Array<number>(d).fill(0))
    for (let head = 0; head < numAttentionHeads; head++) {
      for (let s = 0; s < n; s++) {
        const scores = Array.from({ length: n }, (_, t) => {
          let dot = 0
          for (let j = head * size; j < (head + 1) * size; j++) dot += q![s]![j]! * k![t]![j]!
          return dot / Math.sqrt(size)
        })
        const weights = softmax(scores)
        for (let j = head * size; j < (head + 1) * size; j++) {
          for (let t = 0; t < n; t++) mixed[s]![j]! += weights[t]! * v![t]![j]!
        }
      }
    }
    const attended = mixed.map((row) => affine(row, `${at}.attention.output`, d, d))
    x = x.map((row, s) => row.map((value, j) => value + attended[s]![j]!))
    const inputs = x.map((row) => norm(row, `${at}.feedForwardNorm`))
    const inner = config.intermediateSize
    const sparse = sparseEvery > 0 && layer % sparseEvery === sparseEvery - 1
    let outputs: number[][]
    if (sparse) {
      const experts = config.numExperts
      const router = get(`${at}.feedForward.router.weight`)
      const probabilities = inputs.map((row) =>
        softmax(
          Array.from({ length: experts }, (_, e) => row.reduce((s, value, j) => s + router[e * d + j]! * value, 0)),
        ),
      )
      const chosen = probabilities.map((p) => p.indexOf(Math.max(...p)))
      outputs = inputs.map((row, s) => {
        const e = chosen[s]!
        const hidden = Array.from({ length: inner }, (_, i) => {
          let sum = get(`${at}.feedForward.upBias`)[e * inner + i]!
          for (let j = 0; j < d; j++) sum += get(`${at}.feedForward.up`)[(e * inner + i) * d + j]! * row[j]!
          return Math.max(0, sum)
        })
        return Array.from({ length: d }, (_, o) => {
          let sum = get(`${at}.feedForward.downBias`)[e * d + o]!
          for (let i = 0; i < inner; i++) sum += get(`${at}.feedForward.down`)[(e * d + o) * inner + i]! * hidden[i]!
          return sum * probabilities[s]![e]!
        })
      })
      for (let e = 0; e < experts; e++) {
        const fraction = chosen.filter((c) => c === e).length / n
        const mean = probabilities.reduce((s, p) => s + p[e]!, 0) / n
        routerLoss += balanceLoss * experts * fraction * mean
      }
    } else {
      outputs = inputs.map((row) =>
        affine(
          affine(row, `${at}.feedForward.up`, d, inner).map((value) => Math.max(0, value)),
          `${at}.feedForward.down`,
          inner,
          d,
        ),
      )
    }
    x = x.map((row, s) => row.map((value, j) => value + outputs[s]![j]!))
  }
  const pooled = new Array<number>(d).fill(0)
  for (const row of x) {
    norm(row, 'norm').forEach((value, j) => {
      pooled[j]! += value / n
    })
  }
  const logits = affine(pooled, 'head', d, config.numLabels)
  return routerLoss - Math.log(softmax(logits)[label]!)
}

function softmax(values: number[]): number[] {
  const top = Math.max(...values)
  const exponentials = values.map((value) => Math.exp(value - top))
  const total = exponentials.reduce((s, value) => s + value, 0)
  return exponentials.map((value) => value / total)
}
