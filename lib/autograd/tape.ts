import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf } from './layout.js'
import type { Parameter } from './parameter.js'
import type { GradientSink, GradientSite } from './sinks.js'

interface Entry {
  readonly outputs: readonly Tensor[]
  readonly backward: (gradients: readonly (Tensor | undefined)[]) => void
}

/**
 * Records what a forward pass did, and runs it backwards. Without a sink nothing is recorded (evaluation).
 * Weight gradients are never made here: each use of a parameter goes to the sink as a gradient site.
 */
export class Tape {
  readonly #entries: Entry[] = []
  readonly #tracked = new Set<Tensor>()
  readonly #gradients = new Map<Tensor, Tensor>()

  constructor(
    readonly device: Device,
    readonly sink?: GradientSink,
  ) {}

  /** Whether gradients with respect to `tensor` are wanted. */
  tracks(tensor: Tensor): boolean {
    return this.#tracked.has(tensor)
  }

  /** Whether a site of this parameter is wanted. */
  trains(parameter: Parameter | undefined): parameter is Parameter {
    return this.sink !== undefined && parameter?.trainable === true
  }

  /**
   * Records an op: `backward` receives the gradients of `outputs` (undefined where none arrived).
   * Recorded only if a parameter it uses trains or an input is tracked.
   */
  record(
    outputs: readonly Tensor[],
    inputs: readonly Tensor[],
    parameters: readonly (Parameter | undefined)[],
    backward: (gradients: readonly (Tensor | undefined)[]) => void,
  ): void {
    if (!this.sink) return
    if (!inputs.some((input) => this.#tracked.has(input)) && !parameters.some((p) => this.trains(p))) return
    for (const output of outputs) this.#tracked.add(output)
    this.#entries.push({ outputs, backward })
  }

  /** Adds to the gradient of `tensor`, which has its dtype; call it from an op's backward. */
  addGradient(tensor: Tensor, gradient: Tensor): void {
    if (!this.#tracked.has(tensor)) return
    const present = this.#gradients.get(tensor)
    if (!present) {
      this.#gradients.set(tensor, gradient)
      return
    }
    const sum = this.device.empty(tensor.shape, { layout: layoutOf(tensor), dtype: tensor.dtype })
    this.device.run('add', { a: present, b: gradient, y: sum, size: sum.size, alpha: 1, beta: 1 })
    this.#gradients.set(tensor, sum)
  }

  /** Hands a use of a trainable parameter to the sink. */
  addSite(site: GradientSite): void {
    this.sink?.add(site)
  }

  /** Runs backward from a loss per unit, [units]: the gradient of the sum over units, kept apart by unit. */
  backward(lossPerUnit: Tensor): void {
    const layout = layoutOf(lossPerUnit)
    if (lossPerUnit.shape.length !== 1 || layout === undefined || layout.kind !== 'rows' || layout.perUnit !== layout) {
      throw new DpMoeError(
        'SHAPE_MISMATCH',
        `backward: expected one loss per unit, got ${describe(lossPerUnit)}; pool row losses with meanPerUnit first`,
      )
    }
    if (!this.sink) throw new DpMoeError('INVALID_ARGUMENT', 'backward: this tape has no gradient sink (evaluation)')
    const ones = this.device.tensor(new Float32Array(lossPerUnit.size).fill(1), lossPerUnit.shape)
    if (this.#tracked.has(lossPerUnit)) this.#gradients.set(lossPerUnit, ones)
    for (let entry = this.#entries.pop(); entry; entry = this.#entries.pop()) {
      const gradients = entry.outputs.map((output) => this.#gradients.get(output))
      if (gradients.some((gradient) => gradient !== undefined)) entry.backward(gradients)
      for (const output of entry.outputs) this.#gradients.delete(output)
    }
  }

  /** The gradient that arrived at a leaf registered with `watch`; for tests. */
  gradientOf(tensor: Tensor): Tensor | undefined {
    return this.#gradients.get(tensor)
  }

  /** Tracks an input that no parameter made, so that `gradientOf` tells its gradient. */
  watch(tensor: Tensor): Tensor {
    this.#tracked.add(tensor)
    return tensor
  }
}
