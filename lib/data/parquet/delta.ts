import type { UnpackingBudget } from './budget.js'
import type { ByteReader } from './byte-reader.js'

/** Reads `count` integers written as differences in packed blocks; they wrap at `bits`. */
export function readDeltas(reader: ByteReader, bits: 32 | 64, count: number): bigint[] {
  const blockSize = reader.varint()
  const miniblocks = reader.varint()
  const total = reader.varint()
  const first = reader.zigzag()
  const size = blockSize / miniblocks
  if (!(Number.isSafeInteger(size) && size > 0 && size % 8 === 0) || total !== count) {
    throw new RangeError('a page in it has blocks that do not fit together')
  }
  const values: bigint[] = []
  if (count > 0) values.push(BigInt.asIntN(bits, first))
  while (values.length < count) {
    const smallest = reader.zigzag()
    const widths = reader.take(miniblocks)
    for (let block = 0; block < miniblocks && values.length < count; block++) {
      const width = widths[block]!
      if (width > bits) throw new RangeError(`a page in it has values of more than ${bits} bits`)
      const packed = reader.take(Math.min((size / 8) * width, reader.left))
      const wanted = Math.min(size, count - values.length)
      if (wanted * width > packed.length * 8) throw new RangeError('a page ends too early')
      for (let i = 0; i < wanted; i++) {
        values.push(BigInt.asIntN(bits, values.at(-1)! + smallest + bitsAt(packed, i * width, width)))
      }
    }
  }
  return values
}

/** Reads `count` byte strings whose lengths come first. */
export function readDeltaLengths(reader: ByteReader, count: number): Buffer[] {
  return readDeltas(reader, 32, count).map((length) => reader.take(Number(length)))
}

/** Reads `count` byte strings, each of which begins as the one before it does. */
export function readDeltaStrings(reader: ByteReader, count: number, budget: UnpackingBudget): Buffer[] {
  const prefixes = readDeltas(reader, 32, count)
  const suffixes = readDeltaLengths(reader, count)
  let previous = Buffer.alloc(0)
  return suffixes.map((suffix, i) => {
    const shared = Number(prefixes[i])
    if (!(shared >= 0 && shared <= previous.length)) throw new RangeError('a page in it has strings that do not fit')
    budget.take(shared)
    previous = Buffer.concat([previous.subarray(0, shared), suffix])
    return previous
  })
}

/** An integer of `width` bits from bit `start` on, the lowest bit first. */
function bitsAt(bytes: Uint8Array, start: number, width: number): bigint {
  let [low, high] = [0, 0]
  for (let got = 0; got < width; ) {
    const used = (start + got) % 8
    const bits = Math.min(8 - used, width - got, got < 32 ? 32 - got : 8)
    const value = (bytes[Math.floor((start + got) / 8)]! >> used) & ((1 << bits) - 1)
    if (got < 32) low += value * 2 ** got
    else high += value * 2 ** (got - 32)
    got += bits
  }
  return high === 0 ? BigInt(low) : (BigInt(high) << 32n) | BigInt(low)
}
