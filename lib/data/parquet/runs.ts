import type { ByteReader } from './byte-reader.js'

/** Values past the last one with which writers fill a packed run: up to a block of theirs. */
const MOST_FILLING = 1024

/**
 * Reads `count` integers of `width` bits in runs: one value repeated, or groups of eight packed to bits.
 *
 * A repeated run may not pass `count`; packed ones may, by the values that fill them.
 */
export function readRuns(reader: ByteReader, width: number, count: number): Uint32Array {
  if (width > 32) throw new RangeError('a page in it has values of more than 32 bits')
  const values = new Uint32Array(count)
  // Some writers leave out the runs of values without bits.
  if (width === 0 && reader.left === 0) return values
  for (let filled = 0; filled < count; ) {
    const head = reader.varint()
    if (head % 2 === 1) {
      const groups = (head - 1) / 2
      if (groups * 8 > count - filled + MOST_FILLING) throw new RangeError('a page in it has more values than it says')
      const length = Math.min(groups * 8, count - filled)
      // The last group may be cut behind its last value.
      unpackBits(reader.take(Math.min(groups * width, reader.left)), width, values.subarray(filled, filled + length))
      filled += length
    } else {
      if (head / 2 > count - filled) throw new RangeError('a page in it has more values than it says')
      let value = 0
      for (let shift = 0; shift < width; shift += 8) value += reader.byte() * 2 ** shift
      values.fill(value, filled, filled + head / 2)
      filled += head / 2
    }
  }
  return values
}

/** Fills `values` with integers of `width` bits (at most 32), the lowest bit first. */
function unpackBits(bytes: Uint8Array, width: number, values: Uint32Array): void {
  if (values.length * width > bytes.length * 8) throw new RangeError('a page ends too early')
  let at = 0
  let used = 0
  for (let i = 0; i < values.length; i++) {
    let value = 0
    for (let got = 0; got < width; ) {
      const bits = Math.min(8 - used, width - got)
      value += ((bytes[at]! >> used) & ((1 << bits) - 1)) * 2 ** got
      got += bits
      used += bits
      if (used === 8) {
        used = 0
        at++
      }
    }
    values[i] = value
  }
}
