/** Start of FNV-1a 32 (Fowler, Noll, Vo: offset basis). */
export const FNV_OFFSET = 0x811c9dc5

/** The FNV prime for 32 bits. */
export const FNV_PRIME = 0x01000193

/** FNV-1a 32 of bytes, as an unsigned integer; `state` continues an earlier hash. */
export function fnv1a(bytes: Uint8Array, state = FNV_OFFSET): number {
  let hash = state
  for (const byte of bytes) hash = Math.imul(hash ^ byte, FNV_PRIME)
  return hash >>> 0
}

/** The last step of MurmurHash3 32 (`fmix32`): spreads every input bit over all output bits. */
export function mixBits(value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
