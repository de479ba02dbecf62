import { createCipheriv } from 'node:crypto'
import t from 'tap'
import { poissonSample, randomKey } from '../../lib/engine/random.js'

const key = Uint8Array.from({ length: 32 }, (_, i) => 7 * i + 1)

/** The sample by OpenSSL's ChaCha20: unit u reads words 2 (u % 8) and the next of block u / 8 of the step's stream. */
function referenceSample(step: number, population: number, sampleRate: number): number[] {
  const positions: number[] = []
  for (let unit = 0; unit < population; unit++) {
    const start = Buffer.alloc(16)
    start.writeUInt32LE(Math.floor(unit / 8), 0)
    start.writeUInt32LE(2 << 24, 4)
    start.writeUInt32LE(step, 8)
    const block = createCipheriv('chacha20', key, start).update(Buffer.alloc(64))
    const bits = block.readBigUInt64LE(8 * (unit % 8)) >> 11n
    if (Number(bits) * 2 ** -53 < sampleRate) positions.push(unit)
  }
  return positions
}

t.test('Poisson samples are the ones of ChaCha20 (RFC 8439) as OpenSSL has it', async (t) => {
  for (const [step, population, sampleRate] of [
    [0, 100, 0.5],
    [1, 1003, 0.1],
    [2 ** 32 - 1, 77, 0.9],
  ] as const) {
    t.strictSame([...poissonSample(key, step, population, sampleRate)], referenceSample(step, population, sampleRate))
  }
})

t.test('the edges of the sampling rate and the population', async (t) => {
  t.strictSame(poissonSample(key, 3, 5, 1), Int32Array.of(0, 1, 2, 3, 4))
  t.equal(poissonSample(key, 3, 1000, 0).length, 0)
  t.equal(poissonSample(key, 3, 0, 0.5).length, 0)
  for (const [step, population, sampleRate] of [
    [0, 10, 1.1],
    [0, 10, -0.1],
    [0, 10, Number.NaN],
    [0, 2 ** 31, 0.5],
    [0, 1.5, 0.5],
    [-1, 10, 0.5],
    [2 ** 32, 10, 0.5],
  ] as const) {
    t.throws(() => poissonSample(key, step, population, sampleRate), { code: 'INVALID_ARGUMENT' })
  }
  t.throws(() => poissonSample(key.subarray(1), 0, 10, 0.5), { code: 'INVALID_ARGUMENT', message: /32 bytes/ })
})

t.test('keys from the operating system are 32 bytes and differ', async (t) => {
  const keys = Array.from({ length: 20 }, () => Buffer.from(randomKey()).toString('hex'))
  t.ok(keys.every((hex) => hex.length === 64))
  t.equal(new Set(keys).size, keys.length)
})
