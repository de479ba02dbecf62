/** bfloat16 bits as float32 values. Exact. */
export function widenBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) words[i] = halves[i]! << 16
  return new Float32Array(words.buffer)
}

/** Float32 values as bfloat16 bits, rounded to nearest, ties to even; a NaN stays one. */
export function roundToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const halves = new Uint16Array(values.length)
  for (let i = 0; i < halves.length; i++) {
    const bits = words[i]!
    const upper = bits >>> 16
    halves[i] = Number.isNaN(values[i]) ? upper | 0x40 : (bits + 0x7fff + (upper & 1)) >>> 16
  }
  return halves
}
