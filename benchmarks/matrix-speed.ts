import type { Device } from '../lib/engine/index.js'

/** GFLOP/s of the product of two 1536 x 1536 matrices: the best of ten. What limits are stated in. */
export async function matrixSpeed(device: Device): Promise<number> {
  const n = 1536
  const [x, weight, y] = [device.zeros([n, n]), device.zeros([n, n]), device.empty([n, n])]
  const sizes = { rows: n, k: n, n, groups: 1, groupStride: 1 }
  const options = { transposed: true, accumulate: false, activation: 0 }
  let best = 0
  for (let i = 0; i < 10; i++) {
    const start = performance.now()
    device.run('matrixMultiply', { x, weight, y, ...sizes, ...options })
    await device.synchronize()
    best = Math.max(best, (2 * n ** 3) / (performance.now() - start) / 1e6)
  }
  for (const tensor of [x, weight, y]) tensor[Symbol.dispose]()
  return best
}
