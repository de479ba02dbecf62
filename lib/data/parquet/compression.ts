import { brotliDecompressSync, unzipSync } from 'node:zlib'
import type { CompressionCodec, Compressors } from 'hyparquet'
import { requireZstdWithin } from './zstd.js'

/** Unpacks a page to exactly the size that is stated. */
export type Decompress = (input: Uint8Array, size: number) => Uint8Array

/** The function that unpacks the pages of a codec. */
export async function decompressor(codec: CompressionCodec): Promise<Decompress> {
  const unpack = await unpackerOf(codec)
  return (input, size) => {
    const output = size === 0 ? new Uint8Array(0) : unpack(input, size)
    if (output.length !== size) throw new RangeError('a page in it has another size than it says')
    return output
  }
}

async function unpackerOf(codec: CompressionCodec): Promise<Decompress> {
  if (codec === 'UNCOMPRESSED') return (input) => input
  if (codec === 'GZIP') return (input, size) => unzipSync(input, { maxOutputLength: size })
  if (codec === 'BROTLI') return (input, size) => brotliDecompressSync(input, { maxOutputLength: size })
  const { compressors } = await import('hyparquet-compressors')
  const unpack = (compressors as Compressors)[codec]
  if (unpack === undefined) throw new RangeError(`its compression (${codec}) is not read`)
  if (codec !== 'ZSTD') return unpack
  return (input, size) => {
    requireZstdWithin(input, size)
    return unpack(input, size)
  }
}
