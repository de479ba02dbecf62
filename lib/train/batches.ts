import { type Dataset, splitIntoMicroBatches } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { type TextBatch, textBatch } from '../models/text-batch.js'
import type { MicroBatch } from '../nn/accumulate.js'

/** The batch of the given units, cut so that no micro-batch has more than `maxRows` rows; units are never split. */
export function microBatches(
  device: Device,
  data: Dataset,
  units: Int32Array,
  maxRows: number,
): MicroBatch<TextBatch>[] {
  return splitIntoMicroBatches(data.lengthsOf(units), maxRows).map(({ start, end }) => () => {
    const part = units.subarray(start, end)
    return textBatch(device, data.batch(part), data.labelsOf(part))
  })
}
