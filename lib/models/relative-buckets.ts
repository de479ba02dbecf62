/**
 * Buckets of distances key - query for a relative attention bias (arXiv 1910.10683), from -maxDistance to maxDistance; those
 * further away share the buckets of the ends. Half of the buckets are one distance each, the others grow with its logarithm.
 * `bidirectional`: keys before and after a query have buckets of their own; otherwise those after it share that of 0.
 */
export function relativeBuckets(buckets: number, maxDistance: number, bidirectional: boolean): Int32Array {
  const side = bidirectional ? Math.floor(buckets / 2) : buckets
  return Int32Array.from({ length: 2 * maxDistance + 1 }, (_, index) => {
    const distance = index - maxDistance
    if (!bidirectional) return bucketOf(Math.max(0, -distance), side, maxDistance)
    return (distance > 0 ? side : 0) + bucketOf(Math.abs(distance), side, maxDistance)
  })
}

function bucketOf(distance: number, buckets: number, maxDistance: number): number {
  const exact = Math.floor(buckets / 2)
  if (distance < exact) return distance
  // In float32, as models were trained: a distance on the border of two buckets falls to the same side.
  const { fround } = Math
  const logarithm = fround(Math.log(fround(distance / exact)))
  const part = fround(fround(logarithm / fround(Math.log(maxDistance / exact))) * (buckets - exact))
  return Math.min(buckets - 1, exact + Math.trunc(part))
}
