import type { StepRandom } from '../autograd/elementwise.js'
import type { UnitLayout } from '../autograd/layout.js'
import type { GradientSink } from '../autograd/sinks.js'
import { SumSink } from '../autograd/sinks.js'
import { Tape } from '../autograd/tape.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import type { ForwardContext } from './module.js'
import type { Telemetry } from './telemetry.js'

/** Units on the device, ready for a forward pass. */
export interface UnitBatch {
  readonly layout: UnitLayout
}

/** The loss of each unit of a batch, [units]. */
export type LossFunction<B extends UnitBatch> = (batch: B, context: ForwardContext) => Tensor

/** Part of a batch, put on the device when its turn comes. */
export type MicroBatch<B extends UnitBatch> = () => B

export interface AccumulateOptions {
  readonly random?: StepRandom
  readonly telemetry?: Telemetry
}

/** Sums over the units of a batch. Made without noise: private values. */
export interface BatchSums {
  readonly units: number
  readonly rows: number
  readonly loss: number
}

/** A sink whose gradients are final only once a micro-batch is done. */
export interface MicroBatchSink extends GradientSink {
  finish(): void
}

/**
 * Runs forward and backward over micro-batches; every sink adds to the same gradient buffers, so any split of a batch
 * gives the same sum. Nothing of a micro-batch outlives it on the device.
 */
export async function accumulateGradients<B extends UnitBatch>(
  device: Device,
  microBatches: Iterable<MicroBatch<B>>,
  loss: LossFunction<B>,
  sinkFor: (units: number) => MicroBatchSink,
  { random, telemetry }: AccumulateOptions = {},
): Promise<BatchSums> {
  let sums: BatchSums = { units: 0, rows: 0, loss: 0 }
  for (const microBatch of microBatches) {
    const { losses, layout } = device.scope(() => {
      const batch = microBatch()
      const sink = sinkFor(batch.layout.units)
      const tape = new Tape(device, sink, { releases: true })
      const lossPerUnit = loss(batch, { tape, training: true, random, telemetry })
      tape.backward(lossPerUnit)
      sink.finish()
      return { losses: lossPerUnit.data(), layout: batch.layout }
    })
    let total = 0
    for (const value of await losses) if (Number.isFinite(value)) total += Number(value)
    sums = { units: sums.units + layout.units, rows: sums.rows + layout.rows, loss: sums.loss + total }
  }
  return sums
}

/** The sink of non-private training: plain sums, added at once. */
export function sumSink(): MicroBatchSink {
  const sink = new SumSink()
  return { add: (site) => sink.add(site), finish: () => {} }
}
