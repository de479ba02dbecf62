import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { bfloat16ToFloat32Bits, float16ToFloat32Bits, roundToFloat16 } from '../../lib/models/half-precision.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from '../../lib/models/safetensors.js'

/** Written by the reference library: F32 "a" and F16 "b" of one 2 x 3 matrix, and the I64 scalar "n". */
const REFERENCE =
  'yAAAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJuIjp7ImR0eXBlIjoiSTY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOls' +
  'wLDhdfSwiYSI6eyJkdHlwZSI6IkYzMiIsInNoYXBlIjpbMiwzXSwiZGF0YV9vZmZzZXRzIjpbOCwzMl19LCJiIjp7ImR0eXBlIjoiRjE2Iiwic2hhcGU' +
  'iOlsyLDNdLCJkYXRhX29mZnNldHMiOlszMiw0NF19fSAgIAcAAAAAAAAAAADAPwAAEMBZ2QAzAOB/R83MzD0AAACAAD6AwAEA/3tmLgCA'

const MATRIX = Float32Array.of(1.5, -2.25, 3e-8, 65504, 0.1, -0)

/** A file with this header (an object, or its text) and `dataBytes` bytes of data. */
function file(header: unknown, dataBytes = 0, length?: bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(json.length))
  return Buffer.concat([prefix, json, Buffer.alloc(dataBytes)])
}

const float = (begin: number, end: number, shape: unknown = [(end - begin) / 4], dtype: unknown = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
})

t.test('reads what the reference library wrote', async (t) => {
  const path = join(t.testdir(), 'model.safetensors')
  writeFileSync(path, Buffer.from(REFERENCE, 'base64'))
  await using model = await SafetensorsFile.open(path)
  t.same(model.metadata, { format: 'pt' })
  t.match(model.tensors.get('a'), { dtype: 'F32', shape: [2, 3] })
  t.same(await model.readFloat32('a'), MATRIX)
  t.same(await model.readFloat32('b'), Float32Array.of(1.5, -2.25, 2 ** -24, 65504, 0.0999755859375, -0))
  t.same(Buffer.from(await model.readBytes('n')).readBigInt64LE(), 7n)
  await t.rejects(model.readFloat32('n'), { code: 'MODEL_FORMAT', message: /F32, BF16 or F16.*"n".*got I64/ })
  await t.rejects(model.readFloat32('x'), { code: 'MODEL_FORMAT', message: /holds no tensor "x" .*3: n, a, b/ })
})

t.test('what is written is read back, bit by bit', async (t) => {
  const path = join(t.testdir(), 'model.safetensors')
  const tensor = fc.record({
    shape: fc.array(fc.nat(4), { maxLength: 3 }),
    isHalf: fc.boolean(),
    seed: fc.nat(255),
  })
  const tensors = fc.dictionary(
    fc.string({ unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    tensor,
  )
  await fc.assert(
    fc.asyncProperty(tensors, fc.dictionary(fc.string(), fc.string()), async (described, metadata) => {
      const sources = new Map<string, TensorSource>()
      for (const [name, { shape, isHalf, seed }] of Object.entries(described)) {
        const size = shape.reduce((product, length) => product * length, 1)
        const bytes = Uint8Array.from({ length: size * (isHalf ? 2 : 4) }, (_, i) => (i * 89 + seed) & 0xff)
        sources.set(name, { dtype: isHalf ? 'BF16' : 'F32', shape, data: () => bytes })
      }
      const written = await writeSafetensors(path, sources, metadata)
      t.equal(written.byteLength, readFileSync(path).byteLength)
      await using model = await SafetensorsFile.open(path)
      t.same(model.metadata, { ...metadata })
      t.equal(model.tensors.size, sources.size)
      for (const [name, { dtype, shape, data }] of sources) {
        t.match(model.tensors.get(name), { dtype, shape })
        t.same(await model.readBytes(name), (data as () => Uint8Array)())
      }
      return t.passing()
    }),
    { numRuns: 60 },
  )
})

t.test('a file is aligned, deterministic, and marked for Hugging Face', async (t) => {
  const folder = t.testdir()
  const sources = new Map<string, TensorSource>([
    ['half', { dtype: 'F16', shape: [3], data: new Uint8Array(6) }],
    ['matrix', { dtype: 'F32', shape: [2, 3], data: MATRIX.subarray(0, 6) }],
  ])
  await writeSafetensors(join(folder, 'a'), sources)
  await writeSafetensors(join(folder, 'b'), new Map([...sources].reverse()))
  const bytes = readFileSync(join(folder, 'a'))
  t.ok(bytes.equals(readFileSync(join(folder, 'b'))))
  t.equal(bytes.readBigUInt64LE() % 8n, 0n)
  await using model = await SafetensorsFile.open(join(folder, 'a'))
  t.same([...model.tensors.keys()], ['matrix', 'half'], 'wide elements first')
  t.same(model.metadata, { format: 'pt' })
  t.same(readdirSync(folder).sort(), ['a', 'b'], 'no temporary file is left')
})

t.test('a tensor that does not fit its shape is refused, and the file is not touched', async (t) => {
  const folder = t.testdir({ model: 'as it was' })
  const write = (source: Partial<TensorSource>, name = 'w') =>
    writeSafetensors(join(folder, 'model'), new Map([[name, { dtype: 'F32', shape: [2], data: MATRIX, ...source }]]))
  await t.rejects(write({}), { name: 'TypeError', message: 'Expected 8 bytes for tensor w, F32 [2], got 24' })
  await t.rejects(write({ dtype: 'F16', shape: [12] }), { message: /Expected bytes of F16 .*got 'a Float32Array'/ })
  await t.rejects(write({ shape: [-1] }), { message: /Expected whole numbers for shape of w/ })
  await t.rejects(write({ shape: [6] }, '__metadata__'), { message: /does not reserve/ })
  const failure = new Error('the source failed')
  await t.rejects(write({ shape: [6], data: () => Promise.reject(failure) }), failure)
  t.same(readdirSync(folder), ['model'])
  t.equal(readFileSync(join(folder, 'model'), 'utf8'), 'as it was')
})

t.test('a file that is not what it claims', async (t) => {
  const path = join(t.testdir(), 'model.safetensors')
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /it has 0 bytes/],
    ['shorter than the prefix', Buffer.from('abc'), /it has 3 bytes/],
    ['a header of 2^63 bytes', file('{}', 0, 1n << 63n), /header of 9223372036854775808 bytes/],
    ['a header of 2^64 - 1 bytes', file('{}', 0, (1n << 64n) - 1n), /header of 18446744073709551615 bytes/],
    ['a header longer than the file', file('{}', 0, 3n), /header of 3 bytes, and 2 follow \(truncated\?\)/],
    ['no header', file('', 0), /not a JSON object/],
    ['a PyTorch file', Buffer.from('PK\x03\x04 a zip file, as torch.save writes it'), /header of \d+ bytes/],
    ['a header of text', file('model'), /not a JSON object/],
    ['a header cut inside', file('{"a":{"dtype"'), /not JSON/],
    ['bad UTF-8', Buffer.concat([file('', 0, 4n), Buffer.from([0x7b, 0x22, 0xff, 0x7d])]), /not UTF-8/],
    ['foreign JSON', file({ model_type: 'bert', layers: [1] }), /"model_type" is not described by an object/],
    ['a config', file({ vision: { size: 3 } }), /"vision" has the unknown dtype undefined/],
    ['an array', file([1, 2]), /not a JSON object/],
    ['metadata that is no text', file({ __metadata__: { a: 1 } }), /__metadata__/],
    ['an unknown dtype', file({ a: float(0, 4, [1], 'F128') }, 4), /unknown dtype "F128"/],
    ['a dtype of the prototype', file({ a: float(0, 4, [1], 'toString') }, 4), /unknown dtype "toString"/],
    ['a negative shape', file({ a: float(0, 4, [-1]) }, 4), /shape of tensor "a"/],
    ['a fractional shape', file({ a: float(0, 4, [1.5]) }, 4), /shape of tensor "a"/],
    [
      'a shape that overflows',
      file({ a: float(0, 4, [2 ** 40, 2 ** 40]) }, 4),
      /needs .* bytes, and its offsets give 4/,
    ],
    ['a shape beyond exact numbers', file(`{"a":{"dtype":"F32","shape":[1e300],"data_offsets":[0,4]}}`, 4), /shape/],
    ['a wrong byte count', file({ a: float(0, 8, [3]) }, 8), /F32 \[3\], needs 12 bytes, and its offsets give 8/],
    ['three offsets', file({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4, 8] } }, 8), /data_offsets/],
    ['offsets of text', file({ a: { dtype: 'F32', shape: [1], data_offsets: ['0', '4'] } }, 8), /data_offsets/],
    ['reversed offsets', file({ a: float(4, 0, [1]) }, 4), /ends \(byte 0\) before it begins \(byte 4\)/],
    ['out of range', file({ a: float(0, 4) }, 0), /ends at byte 4 of the data, which has 0 bytes \(truncated\?\)/],
    ['far out of range', file({ a: float(2 ** 53 - 5, 2 ** 53 - 1) }, 4), /which has 4 bytes/],
    ['overlap', file({ a: float(0, 8), b: float(4, 12) }, 12), /"b" at byte 4 overlaps/],
    ['the same bytes twice', file({ a: float(0, 4), b: float(0, 4) }, 4), /"b" at byte 0 overlaps/],
    ['a gap', file({ a: float(0, 4), b: float(8, 12) }, 12), /"b" at byte 8 leaves a gap/],
    ['data that belongs to no tensor', file({ a: float(0, 4) }, 8), /end at byte 4, and the data has 8 bytes/],
    [
      'a name twice',
      file(`{"a":${JSON.stringify(float(0, 4))},"\\u0061":${JSON.stringify(float(0, 4))}}`, 4),
      /"a" twice/,
    ],
    ['a field twice', file('{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', 4), /"dtype" twice/],
    ['deep nesting', file(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`), /"a" is not described by an object/],
  ]
  for (const [name, bytes, message] of cases) {
    writeFileSync(path, bytes)
    const what = {
      code: 'MODEL_FORMAT',
      message: new RegExp(`model.safetensors is not a valid.*${message.source}.*again`),
    }
    await t.rejects(SafetensorsFile.open(path), what, name)
  }
  await t.rejects(SafetensorsFile.open(`${path}.none`), { code: 'FILE_NOT_FOUND' })
  await t.rejects(SafetensorsFile.open(t.testdirName), { code: 'FILE_ACCESS', message: /is a folder/ })
})

t.test('odd but valid headers', async (t) => {
  const path = join(t.testdir(), 'model.safetensors')
  const open = async (bytes: Buffer) => {
    writeFileSync(path, bytes)
    await using model = await SafetensorsFile.open(path)
    return model
  }
  t.equal((await open(file({}))).tensors.size, 0)
  t.same((await open(file({ none: float(0, 0, [3, 0]), one: float(0, 4, []) }, 4))).tensors.get('one')!.shape, [])
  t.same(
    [...(await open(file('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1))).tensors.keys()],
    ['__proto__'],
  )
  t.same(Object.entries((await open(file('{"__metadata__":{"__proto__":"text"}}'))).metadata), [['__proto__', 'text']])
})

t.test('damaged in any byte or cut anywhere, it opens or is refused, and never fails otherwise', async (t) => {
  const path = join(t.testdir(), 'model.safetensors')
  const bytes = Buffer.from(REFERENCE, 'base64')
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), async (position, value, length) => {
      const damaged = Buffer.from(bytes)
      damaged[position] = value
      writeFileSync(path, damaged.subarray(0, length))
      try {
        await using model = await SafetensorsFile.open(path)
        for (const name of model.tensors.keys()) await model.readBytes(name)
      } catch (error) {
        return t.match(error, { code: 'MODEL_FORMAT' })
      }
      return true
    }),
  )
  for (let length = 0; length < bytes.length; length++) {
    writeFileSync(path, bytes.subarray(0, length))
    await t.rejects(SafetensorsFile.open(path), { code: 'MODEL_FORMAT' })
  }
})

t.test('every 16-bit float widens exactly', async (t) => {
  const bits = new Uint32Array(1)
  const asFloat = (value: number) => {
    bits[0] = value
    return new Float32Array(bits.buffer)[0]!
  }
  for (let half = 0; half < 65536; half++) {
    const sign = half & 0x8000 ? -1 : 1
    const exponent = (half >> 10) & 31
    const mantissa = half & 1023
    const finite = exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15)
    const expected = sign * (exponent < 31 ? finite : mantissa === 0 ? Infinity : Number.NaN)
    if (!Object.is(asFloat(float16ToFloat32Bits(half)), expected)) t.fail(`float16 ${half}`)
    const upper = new DataView(new ArrayBuffer(4))
    upper.setUint16(0, half)
    if (!Object.is(asFloat(bfloat16ToFloat32Bits(half)), upper.getFloat32(0))) t.fail(`bfloat16 ${half}`)
  }
})

t.test('rounding to half precision', async (t) => {
  const words = Uint32Array.from({ length: 0x7c00 }, (_, half) => float16ToFloat32Bits(half))
  const finite = new Float32Array(words.buffer)
  const expected = Uint16Array.from({ length: 0x7c00 }, (_, half) => half)
  t.strictSame(roundToFloat16(finite), expected, 'what it holds comes back')
  t.strictSame(
    roundToFloat16(finite.map((value) => -value)),
    expected.map((half) => half | 0x8000),
    'with its sign',
  )
  // float64 holds the middle of two neighbours, and float32 too.
  const middles = finite.subarray(0, 0x7bff).map((value, half) => (value + finite[half + 1]!) / 2)
  t.strictSame(
    roundToFloat16(middles),
    expected.subarray(0, 0x7bff).map((half) => half + (half % 2)),
    'a tie goes to the even neighbour',
  )
  const nextUp = middles.map((value) => value * (1 + 2 ** -22) + 2 ** -40)
  t.strictSame(roundToFloat16(nextUp), expected.subarray(1), 'above the middle')
  const special = Float32Array.of(
    65504,
    65519.99,
    65520,
    1e38,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    1e-40,
  )
  t.strictSame([...roundToFloat16(special)], [0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00, 0xfc00, 0])
  t.ok((roundToFloat16(Float32Array.of(Number.NaN))[0]! & 0x7fff) > 0x7c00, 'a NaN stays one')
})
