/**
 * Widening of 16-bit floats to float32, in place: `buffer` holds `count` 16-bit values in its second half and receives
 * `count` float32 values from its start, so that no second buffer is needed. Value i is read at byte 2 (count + i) and
 * written at byte 4 i, which lies before every value still to be read.
 */
export function widenInPlace(buffer: ArrayBuffer, count: number, widen: (bits: number) => number): Float32Array {
  const source = new Uint16Array(buffer, 2 * count, count)
  const target = new Uint32Array(buffer, 0, count)
  for (let i = 0; i < count; i++) target[i] = widen(source[i]!)
  return new Float32Array(buffer, 0, count)
}

/** bfloat16 bits to float32 bits: the upper half of a float32. Exact. */
export function bfloat16ToFloat32Bits(bits: number): number {
  return bits << 16
}

/** IEEE 754 half-precision bits to float32 bits. Exact; a NaN stays a NaN. */
export function float16ToFloat32Bits(bits: number): number {
  const sign = (bits & 0x8000) << 16
  const exponent = (bits >> 10) & 0x1f
  const mantissa = bits & 0x3ff
  if (exponent === 0x1f) return sign | 0x7f800000 | (mantissa << 13)
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (mantissa << 13)
  if (mantissa === 0) return sign
  // A subnormal m 2^-24 is normal in float32: shift its leading one to the implicit bit.
  const shift = Math.clz32(mantissa) - 21
  return sign | ((113 - shift) << 23) | (((mantissa << shift) & 0x3ff) << 13)
}

/** Float32 values as half-precision bits, rounded to nearest, ties to even; beyond 65504 infinite, a NaN stays one. */
export function roundToFloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const halves = new Uint16Array(values.length)
  for (let i = 0; i < halves.length; i++) halves[i] = float32ToFloat16Bits(words[i]!)
  return halves
}

function float32ToFloat16Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  // 65520 and above round to infinity, below 2^-14 the result is subnormal: a multiple of 2^-24.
  if (magnitude >= 0x477ff000) return sign | 0x7c00
  if (magnitude < 0x38800000) {
    const shift = 126 - (magnitude >>> 23)
    if (shift > 24) return sign
    return sign | roundedShift((magnitude & 0x7fffff) | 0x800000, shift)
  }
  return sign | (roundedShift(magnitude, 13) - (112 << 10))
}

/** value / 2^shift, to nearest, ties to even. */
function roundedShift(value: number, shift: number): number {
  const quotient = value >>> shift
  const rest = value - quotient * 2 ** shift
  const half = 2 ** (shift - 1)
  return rest > half || (rest === half && quotient % 2 === 1) ? quotient + 1 : quotient
}
