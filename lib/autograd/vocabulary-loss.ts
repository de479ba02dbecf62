import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { converted } from './cast.js'
import { describe, requireAligned, requireShared, requireUnits, type UnitLayout } from './layout.js'
import type { Parameter } from './parameter.js'
import { type RowPart, rowParts, segmentsOf } from './row-parts.js'
import type { GradientSink, LinearSite } from './sinks.js'
import type { Tape } from './tape.js'

/** x W': x [rows, d], weight [classes, d]. */
export interface ScoreTerm {
  readonly x: Tensor
  readonly weight: Parameter
}

/**
 * -log softmax(scores)[target] per row, where scores [rows, classes] are the sum of the terms: as `linear` and
 * `crossEntropy`, but scores of a part of the rows are held at a time (`TapeOptions.scoreRows`), and made again in
 * backward. targets [rows] int32 (-1: no loss) -> [rows].
 *
 * Nothing of another unit decides how a unit's gradient is made: one of more rows than a part is cut at places counted from
 * its start, others stay whole. Each gradient site is of some of the units. For a sink that clips they are made again once
 * the factors are known, and those of a unit that was cut come as one, written out.
 */
export function vocabularyLoss(tape: Tape, terms: readonly ScoreTerm[], targets: Tensor): Tensor {
  const scores = new Scores(tape, terms, targets)
  const loss = scores.loss()
  const inputs = terms.map(({ x }) => x)
  const weights = terms.map(({ weight }) => weight)
  tape.record([loss], inputs, weights, ([dLoss]) => scores.backward(dLoss!), scores.saved)
  return loss
}

class Scores {
  readonly #tape: Tape
  readonly #terms: readonly ScoreTerm[]
  readonly #targets: Tensor
  readonly #layout: UnitLayout
  readonly #classes: number
  readonly #parts: readonly RowPart[]
  readonly #logSumExp: Tensor
  /** Scores of one part, where that is all; later on their gradient, in the same memory. */
  #kept: { readonly tensor: Tensor; isGradient: boolean } | undefined

  constructor(tape: Tape, terms: readonly ScoreTerm[], targets: Tensor) {
    this.#layout = requireUnits('vocabularyLoss', targets)
    this.#classes = requireTerms(terms, targets)
    this.#tape = tape
    this.#terms = terms
    this.#targets = targets
    this.#parts = rowParts(this.#layout, tape.scoreRows(this.#classes))
    this.#logSumExp = tape.device.empty([this.#layout.rows])
  }

  /** What backward reads beside the terms. */
  get saved(): readonly Tensor[] {
    return this.#kept ? [this.#logSumExp, this.#kept.tensor] : [this.#logSumExp]
  }

  loss(): Tensor {
    const { device, records } = this.#tape
    const loss = device.empty([this.#layout.rows], { layout: this.#layout })
    for (const part of this.#parts) {
      const kept = device.scope(() => {
        const logits = this.#scores(part)
        device.run('crossEntropy', { ...this.#rowsOf(part, logits), loss: slice(loss, part) })
        return records && this.#parts.length === 1 ? logits : undefined
      })
      if (kept) this.#kept = { tensor: kept, isGradient: false }
    }
    return loss
  }

  backward(dLoss: Tensor): void {
    const tape = this.#tape
    const dx = this.#terms.map(({ x }) => {
      return tape.tracks(x) ? tape.device.empty(x.shape, { layout: this.#layout, dtype: x.dtype }) : undefined
    })
    let runs = 0
    const run = (sink: GradientSink) => {
      tape.retain(this.#run(sink, dLoss, runs === 0 ? dx : []))
      runs++
    }
    const isTrained = this.#terms.some(({ weight }) => tape.trains(weight))
    const runsAgain = isTrained && tape.sink!.addPart?.(run)
    if (runs === 0) run(tape.sink!)
    if (runsAgain) tape.retain([...this.#terms.map(({ x }) => x), dLoss, ...this.saved])
    this.#terms.forEach(({ x }, index) => {
      const gradient = dx[index]
      if (gradient) tape.addGradient(x, gradient)
    })
  }

  /** Hands the sites of every part to the sink and writes the gradients of the terms' inputs; what the sink still needs. */
  #run(sink: GradientSink, dLoss: Tensor, dx: readonly (Tensor | undefined)[]): readonly Tensor[] {
    const { device } = this.#tape
    const needed: Tensor[] = []
    const sums = new Map<Parameter, Tensor>()
    for (const part of this.#parts) {
      if (part.piece === 'first' && sink.clips) {
        for (const { weight } of this.#terms) sums.set(weight, device.zeros([1, weight.size]))
      }
      const ofPart = device.scope(() => {
        const dScores = this.#gradient(part, dLoss)
        return this.#terms.flatMap(({ x, weight }, index) => {
          const dy = converted(device, dScores, x.dtype)
          const gradient = dx[index]
          if (gradient) this.#inputGradient(dy, weight, slice(gradient, part))
          if (!this.#tape.trains(weight)) return []
          const { firstUnit } = part
          const segments = segmentsOf(this.#layout, part)
          const site: LinearSite = { kind: 'linear', parameter: weight, dy, x: slice(x, part), segments, firstUnit }
          const isOnly = this.#tape.isOnlyUse(weight)
          const sum = sums.get(weight)
          if (!sum) return sink.add(site, isOnly)
          addPiece(site, sum)
          if (part.piece !== 'last') return []
          return sink.add({ kind: 'perUnit', parameter: weight, gradient: sum, units: 1, firstUnit }, isOnly)
        })
      })
      needed.push(...ofPart)
      if (part.piece !== 'last') continue
      for (const sum of sums.values()) if (!ofPart.includes(sum)) sum[Symbol.dispose]()
      sums.clear()
    }
    return needed
  }

  /** [rows of the part, classes]. */
  #scores(part: RowPart): Tensor {
    const { device } = this.#tape
    const rows = part.end - part.begin
    const y = device.empty([rows, this.#classes])
    for (const [index, { x, weight }] of this.#terms.entries()) {
      device.run('matrixMultiply', {
        x: slice(x, part),
        weight: weight.as(x.dtype),
        y,
        rows,
        k: x.shape[1]!,
        n: this.#classes,
        groups: 1,
        groupStride: 1,
        transposed: true,
        accumulate: index > 0,
        activation: 0,
      })
    }
    return y
  }

  /** The gradient of a part's scores. */
  #gradient(part: RowPart, dLoss: Tensor): Tensor {
    const logits = this.#kept?.tensor ?? this.#scores(part)
    if (this.#kept?.isGradient) return logits
    const rows = this.#rowsOf(part, logits)
    this.#tape.device.run('crossEntropyBackward', { ...rows, dLoss: slice(dLoss, part), dLogits: logits })
    if (this.#kept) this.#kept.isGradient = true
    return logits
  }

  #rowsOf(part: RowPart, logits: Tensor) {
    return {
      logits,
      targets: slice(this.#targets, part),
      logSumExp: slice(this.#logSumExp, part),
      rows: part.end - part.begin,
      classes: this.#classes,
    }
  }

  #inputGradient(dy: Tensor, weight: Parameter, y: Tensor): void {
    const [rows, n] = y.shape as [number, number]
    this.#tape.device.run('matrixMultiply', {
      x: dy,
      weight: weight.as(dy.dtype),
      y,
      rows,
      k: this.#classes,
      n,
      groups: 1,
      groupStride: 1,
      transposed: false,
      accumulate: false,
      activation: 0,
    })
  }
}

/** The rows of a part, over the same memory. */
function slice(tensor: Tensor, { begin, end }: RowPart): Tensor {
  const width = tensor.shape[1] ?? 1
  const rows = tensor.slice(begin * width, (end - begin) * width)
  return tensor.shape.length === 1 ? rows : rows.reshape([end - begin, width])
}

/** Adds the gradient of a piece of a unit to that of the unit. */
function addPiece({ parameter, dy, x, segments }: LinearSite, gradient: Tensor): void {
  const [rows, p] = dy.shape as [number, number]
  const segmentOffsets = segments.offsets
  const d = x.shape[1]!
  parameter.device.run('weightGradient', { dy, x, segmentOffsets, gradient, rows, p, d, segments: 1, units: 1 })
}

/** The number of classes, or an error with all shapes. */
function requireTerms(terms: readonly ScoreTerm[], targets: Tensor): number {
  const classes = terms[0]?.weight.shape[0] ?? 0
  for (const { x, weight } of terms) {
    requireAligned('vocabularyLoss', x, targets)
    requireShared('vocabularyLoss', 'the weight', weight.tensor)
    const [p, d] = weight.shape
    if (x.shape.length === 2 && weight.shape.length === 2 && x.shape[1] === d && p === classes) continue
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `vocabularyLoss: expected x [rows, d] and weight [${classes}, d], got ${describe(x)}, weight [${weight.shape.join(', ')}]`,
    )
  }
  return classes
}
