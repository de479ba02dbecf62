import type { UnitLayout } from '../../autograd/layout.js'
import type { Device } from '../../engine/device.js'
import type { Tensor } from '../../engine/tensor.js'
import type { KeyValueStore } from '../decoder.js'

/** Keys and values of all rows that a model has read so far, by layer; a step's rows are added behind them. */
export class KeyValueCache implements KeyValueStore {
  readonly #layers = new Map<number, { key: Tensor; value: Tensor }>()
  /** Bounds of the sequences in the cache before this step's rows. */
  #before: Int32Array | undefined
  #rows: UnitLayout | undefined
  #all: UnitLayout | undefined

  constructor(readonly device: Device) {}

  /** Starts a step that reads the rows of `layout`, of the same sequences as every other step. */
  begin(layout: UnitLayout): void {
    const before = this.#all?.sequenceBounds
    this.#before = before
    this.#rows = layout
    this.#all = before
      ? layout.beside(
          before.map((bound, sequence) => bound + layout.sequenceBounds[sequence]!),
          'keys so far',
        )
      : layout
  }

  extend(layer: number, key: Tensor, value: Tensor): { key: Tensor; value: Tensor } {
    const past = this.#layers.get(layer)
    const now = { key: this.#joined(past?.key, key), value: this.#joined(past?.value, value) }
    past?.key[Symbol.dispose]()
    past?.value[Symbol.dispose]()
    this.#layers.set(layer, now)
    return now
  }

  [Symbol.dispose](): void {
    for (const { key, value } of this.#layers.values()) {
      key[Symbol.dispose]()
      value[Symbol.dispose]()
    }
    this.#layers.clear()
  }

  /** A copy of the past rows with the new ones behind them, sequence by sequence. */
  #joined(past: Tensor | undefined, rows: Tensor): Tensor {
    const { device } = this
    const layout = this.#all!
    const d = rows.shape[1]!
    const joined = device.keep(device.empty([layout.rows, d], { layout, dtype: rows.dtype }))
    if (!past) return joined.copyFrom(rows)
    const before = this.#before!
    device.run('concatenateRows', {
      a: past,
      aOffsets: device.tensor(before, [before.length], 'int32'),
      b: rows,
      bOffsets: this.#rows!.sequenceOffsets,
      y: joined,
      d,
      units: layout.sequenceCount,
    })
    return joined
  }
}
