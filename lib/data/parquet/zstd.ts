import { ByteReader } from './byte-reader.js'

/** Largest block, unpacked. */
const BLOCK_BYTES = 128 * 1024

/** What frames may take beyond the data: the largest window that decoders accept, twice. */
const SPARE_BYTES = 256 * 1024 * 1024

const FRAME = 0xfd2fb528
const SKIPPED_FRAME = 0x184d2a50

/**
 * Throws where Zstandard frames could unpack to far more than `size` bytes: the decoder has no limit of its own.
 *
 * @param size bytes that are expected
 */
export function requireZstdWithin(input: Uint8Array, size: number): void {
  const reader = new ByteReader(input)
  let most = 0
  while (reader.left > 0) {
    const magic = reader.uint32()
    if (magic - (magic % 16) === SKIPPED_FRAME) {
      reader.take(reader.uint32())
      continue
    }
    if (magic !== FRAME) throw new RangeError('a page in it is not Zstandard')
    most += frameBytes(reader)
    if (most > 2 * size + SPARE_BYTES) throw new RangeError('a page in it unpacks to more than it says')
  }
}

/** Most memory that a frame can take: its window or stated size, and its blocks. */
function frameBytes(reader: ByteReader): number {
  const descriptor = reader.byte()
  const single = (descriptor >> 5) & 1
  const window = single === 1 ? 0 : reader.byte()
  reader.take([0, 1, 2, 4][descriptor & 3]!)
  const stated = reader.take([single, 2, 4, 8][descriptor >> 6]!)
  let most = stated.reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0)
  if (single === 0) most += 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8)
  for (let last = false; !last; ) {
    const head = reader.byte() + reader.byte() * 2 ** 8 + reader.byte() * 2 ** 16
    const [type, length] = [(head >> 1) & 3, head >> 3]
    last = (head & 1) === 1
    reader.take(type === 1 ? 1 : length)
    most += type === 2 ? BLOCK_BYTES : length
  }
  if (((descriptor >> 2) & 1) === 1) reader.take(4)
  return most
}
