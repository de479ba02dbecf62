import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'

/** Values summed over the units of a step without noise: private, for `private/` of the run folder only. */
export class Telemetry {
  readonly #loads = new Map<string, Tensor>()

  constructor(readonly device: Device) {}

  /** The running count of choices per expert of a layer, float64 [experts]; ops add to it. */
  expertLoads(layer: string, experts: number): Tensor {
    let loads = this.#loads.get(layer)
    if (!loads) {
      loads = this.device.keep(this.device.zeros([experts], { dtype: 'float64' }))
      this.#loads.set(layer, loads)
    }
    return loads
  }

  /** Fraction of choices that went to each expert, by layer; starts counting anew. */
  async takeExpertLoads(): Promise<Record<string, number[]>> {
    const entries = [...this.#loads].map(async ([layer, tensor]) => {
      const counts = Array.from(await tensor.data())
      const total = counts.reduce((sum, count) => sum + Number(count), 0)
      return [layer, counts.map((count) => (total > 0 ? Number(count) / total : 0))] as const
    })
    const loads = Object.fromEntries(await Promise.all(entries))
    this[Symbol.dispose]()
    return loads
  }

  [Symbol.dispose](): void {
    for (const tensor of this.#loads.values()) tensor[Symbol.dispose]()
    this.#loads.clear()
  }
}
