import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { packBatch } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Decoder } from '../../lib/models/decoder.js'
import { Checkpoint } from '../../lib/models/hugging-face/checkpoint.js'
import type { HuggingFaceModel } from '../../lib/models/hugging-face/hugging-face-model.js'
import { causalBatch, seq2seqBatch, tokenBatch } from '../../lib/models/language-batch.js'
import { modelFromPretrained } from '../../lib/models/model-from-pretrained.js'
import { relativeBuckets } from '../../lib/models/relative-buckets.js'
import { type TensorSource, writeSafetensors } from '../../lib/models/safetensors.js'
import { SwitchEncoderClassifier, SwitchTransformer } from '../../lib/models/switch-transformer.js'
import { textBatch } from '../../lib/models/text-batch.js'

const fixtures = fileURLToPath(new URL('../parity/fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())

const values = (tensor: Tensor) => tensor.data() as Promise<Float32Array>
const evaluation = () => ({ tape: new Tape(device), training: false })

async function weightsOf(model: HuggingFaceModel): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {}
  for (const [name, parameter] of model.namedParameters()) found[name] = [...(await values(parameter.tensor))]
  return found
}

type Tensors = Map<string, TensorSource & { data: Float32Array }>

/** Copies a fixture into a folder of the test with its tensors changed, all in one float32 file. */
async function changed(t: Test, name: string, change: (tensors: Tensors) => unknown): Promise<string> {
  const folder = t.testdir({})
  await using checkpoint = await Checkpoint.open(join(fixtures, name))
  const tensors: Tensors = new Map()
  for (const tensor of checkpoint.names()) {
    const { shape } = checkpoint.entry(tensor)
    tensors.set(tensor, { dtype: 'F32', shape, data: await checkpoint.readWeights(tensor) })
  }
  const result = change(tensors)
  await writeSafetensors(join(folder, 'model.safetensors'), result instanceof Map ? (result as Tensors) : tensors)
  await cp(join(fixtures, name, 'config.json'), join(folder, 'config.json'))
  return folder
}

async function changeConfig(folder: string, settings: Record<string, unknown>): Promise<void> {
  const path = join(folder, 'config.json')
  const config = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
  await writeFile(path, JSON.stringify({ ...config, ...settings }))
}

t.test('buckets of a relative bias are those of transformers', async (t) => {
  const cases = JSON.parse(await readFile(join(fixtures, 'relative-buckets.json'), 'utf8')) as {
    buckets: number
    maxDistance: number
    bidirectional: boolean
    found: number[]
  }[]
  for (const { buckets, maxDistance, bidirectional, found } of cases) {
    const ours = relativeBuckets(buckets, maxDistance, bidirectional)
    const beyond = [0, 1, 2].map(() => ours[0]!)
    const behind = [0, 1, 2].map(() => ours.at(-1)!)
    t.strictSame([...beyond, ...ours, ...behind], found, `${buckets} up to ${maxDistance}, ${bidirectional}`)
  }
})

t.test('what is saved is what was read', async (t) => {
  const models = {
    'mixtral-bfloat16-sharded': Decoder,
    'qwen3-moe-dense-tied': Decoder,
    'olmoe-clip-norm': Decoder,
    'switch-capacity-untied': SwitchTransformer,
    bert: BertClassifier,
  } as const
  for (const [name, kind] of Object.entries(models)) {
    const folder = t.testdir({})
    const model = await kind.fromPretrained(device, join(fixtures, name))
    await model.savePretrained(folder)
    const again = await kind.fromPretrained(device, folder)
    t.strictSame(again.config, model.config, `${name}: configuration`)
    t.strictSame(await weightsOf(again), await weightsOf(model), `${name}: weights`)
  }
})

t.test('shards and 16-bit weights', async (t) => {
  const folder = t.testdir({})
  const model = await Decoder.fromPretrained(device, join(fixtures, 'mixtral-bfloat16-sharded'))
  await model.savePretrained(folder)
  await model.savePretrained(folder, { maxShardBytes: 20_000, dtype: 'BF16' })
  await t.rejects(readFile(join(folder, 'model.safetensors')), { code: 'ENOENT' }, 'the single file is gone')
  t.strictSame(await weightsOf(await Decoder.fromPretrained(device, folder)), await weightsOf(model))
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>
  t.equal(config.dtype, 'bfloat16')
  await model.savePretrained(folder, { maxShardBytes: 30_000 })
  const shards = (await readdir(folder)).filter((name) => name.startsWith('model-'))
  t.ok(
    shards.length > 1 && shards.every((name) => name.endsWith(`-of-0000${shards.length}.safetensors`)),
    'those of the earlier save are gone',
  )

  const half = await Decoder.fromPretrained(device, join(fixtures, 'qwen3-moe-dense-tied'))
  await half.savePretrained(folder, { dtype: 'F16' })
  t.strictSame(await weightsOf(await Decoder.fromPretrained(device, folder)), await weightsOf(half), 'float16')

  const index = join(folder, 'model.safetensors.index.json')
  await rm(join(folder, 'model.safetensors'))
  await model.savePretrained(folder, { maxShardBytes: 20_000 })
  const content = JSON.parse(await readFile(index, 'utf8')) as { weight_map: Record<string, string> }
  const refused = async (weightMap: Record<string, string>, message: RegExp) => {
    await writeFile(index, JSON.stringify({ weight_map: weightMap }))
    await t.rejects(Decoder.fromPretrained(device, folder), { code: 'MODEL_FORMAT', message })
  }
  const { 'model.norm.weight': file, ...others } = content.weight_map
  await refused(others, /model\.norm\.weight is in model-\d+-of-\d+\.safetensors, where the index has it elsewhere/)
  await refused({ ...content.weight_map, more: file! }, /holds no tensor more/)
  await refused({ ...content.weight_map, more: '../x.safetensors' }, /expected safetensors files of this folder/)
})

t.test('fused experts, as transformers 5 writes them', async (t) => {
  const plain = await Decoder.fromPretrained(device, join(fixtures, 'mixtral'))
  const { numExperts, expertSize, hiddenSize } = plain.config
  const fuse = (tensors: Tensors, transposed: boolean): Tensors => {
    const fused: Tensors = new Map()
    for (const [name, tensor] of tensors) {
      const expert = /^(.*)block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight$/.exec(name)
      if (!expert) {
        fused.set(name.replace('block_sparse_moe.gate', 'mlp.gate'), tensor)
        continue
      }
      const [, layer, index, part] = expert
      const isDown = part === 'w2'
      const [rows, columns] = isDown ? [hiddenSize, expertSize] : [2 * expertSize, hiddenSize]
      const key = `${layer}mlp.experts.${isDown ? 'down_proj' : 'gate_up_proj'}`
      const shape = transposed ? [numExperts, columns, rows] : [numExperts, rows, columns]
      const whole = fused.get(key) ?? { dtype: 'F32', shape, data: new Float32Array(numExperts * rows * columns) }
      fused.set(key, whole)
      const first = part === 'w3' ? expertSize : 0
      tensor.data.forEach((value, i) => {
        const [row, column] = [first + Math.floor(i / columns), i % columns]
        const within = transposed ? column * rows + row : row * columns + column
        whole.data[Number(index) * rows * columns + within] = value
      })
    }
    return fused
  }
  for (const transposed of [false, true]) {
    const folder = await changed(t, 'mixtral', (tensors) => fuse(tensors, transposed))
    const model = await Decoder.fromPretrained(device, folder)
    t.strictSame(await weightsOf(model), await weightsOf(plain), transposed ? 'transposed' : 'straight')
  }
  const wrong = await changed(t, 'mixtral', (tensors) => {
    const fused = fuse(tensors, false)
    fused.set('model.layers.0.mlp.experts.down_proj', { dtype: 'F32', shape: [2, 3], data: new Float32Array(6) })
    return fused
  })
  const message = /expected model\.layers\.0\.mlp\.experts\.down_proj \[4, 16, 24\] or \[4, 24, 16\], got \[2, 3\]/
  await t.rejects(Decoder.fromPretrained(device, wrong), { code: 'MODEL_FORMAT', message })

  // A mixture whose fused gate and up projection is square, with its down projection told per expert.
  const square = await changed(t, 'olmoe', (tensors) => {
    for (const name of [...tensors.keys()]) if (/experts\.\d+\.(gate|up)_proj/.test(name)) tensors.delete(name)
    for (const layer of [0, 1]) {
      const data = new Float32Array(6 * 16 * 16)
      tensors.set(`model.layers.${layer}.mlp.experts.gate_up_proj`, { dtype: 'F32', shape: [6, 16, 16], data })
    }
    for (const [name, { data }] of [...tensors]) {
      if (name.includes('down_proj')) tensors.set(name, { dtype: 'F32', shape: [16, 8], data: data.slice(0, 128) })
    }
  })
  await changeConfig(square, { intermediate_size: 8 })
  await t.rejects(Decoder.fromPretrained(device, square), {
    code: 'MODEL_FORMAT',
    message: /\[6, 16, 16\] is ambiguous/,
  })
})

t.test('a tensor that does not fit is refused by name, with both shapes', async (t) => {
  const refused = async (name: string, change: (tensors: Tensors) => unknown, message: RegExp) => {
    const folder = await changed(t, name, change)
    const kind = name.startsWith('switch') ? SwitchTransformer : Decoder
    await t.rejects(kind.fromPretrained(device, folder) as Promise<unknown>, { code: 'MODEL_FORMAT', message })
  }
  const tensor = (...shape: number[]) => {
    const data = new Float32Array(shape.reduce((product, extent) => product * extent, 1))
    return { dtype: 'F32', shape, data } as const
  }
  const gate = 'model.layers.0.mlp.gate.weight'
  await refused(
    'olmoe',
    (tensors) => tensors.delete(gate),
    /tensor model\.layers\.0\.mlp\.gate\.weight \[6, 16\] is missing/,
  )
  await refused(
    'olmoe',
    (tensors) => tensors.set(gate, tensor(5, 16)),
    /expected model\.layers\.0\.mlp\.gate\.weight \[6, 16\], got \[5, 16\]/,
  )
  await refused('olmoe', (tensors) => tensors.set('model.more', tensor(2)), /unexpected tensor model\.more \[2\]/)
  const last = 'model.layers.1.mlp.experts.5.down_proj.weight'
  await refused(
    'olmoe',
    (tensors) => tensors.delete(last),
    /tensor model\.layers\.1\.mlp\.experts\.5\.down_proj\.weight \[16, 12\] is missing/,
  )
  await refused(
    'mixtral-tied-router-loss',
    (tensors) => tensors.set('lm_head.weight', tensor(40, 16)),
    /differs from the tensor that config\.json ties it to/,
  )
  await refused(
    'switch',
    (tensors) => tensors.set('decoder.embed_tokens.weight', tensor(40, 16)),
    /decoder\.embed_tokens\.weight differs|shared\.weight differs/,
  )
  const pickled = t.testdir({ 'config.json': '{"model_type": "mixtral"}', 'pytorch_model.bin': '' })
  const message = /holds pytorch_model\.bin, which can run code when it is read/
  await t.rejects(Decoder.fromPretrained(device, pickled), { code: 'MODEL_FORMAT', message })
  const tied = await changed(t, 'mixtral-tied-router-loss', (tensors) => {
    tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!)
  })
  t.ok(await Decoder.fromPretrained(device, tied), 'a copy of the tied table is no error')
})

t.test('a configuration that is not offered is refused by the name of the setting', async (t) => {
  const refused = async (name: string, settings: Record<string, unknown>, message: RegExp) => {
    const folder = await changed(t, name, () => {})
    await changeConfig(folder, settings)
    const kind = name === 'bert' ? BertClassifier : name === 'switch' ? SwitchTransformer : Decoder
    await t.rejects(kind.fromPretrained(device, folder) as Promise<unknown>, { code: 'MODEL_FORMAT', message })
  }
  await refused('mixtral', { sliding_window: 32 }, /config\.json: sliding_window: attention within a window/)
  await refused('qwen3-moe', { use_sliding_window: true, sliding_window: 32 }, /sliding_window/)
  await refused('mixtral', { rope_scaling: { rope_type: 'yarn', factor: 2 } }, /rope_type: 'yarn' is not offered/)
  await refused('mixtral', { hidden_act: 'mish' }, /hidden_act: expected one of relu, gelu/)
  await refused('mixtral', { model_type: 'llama' }, /model_type/)
  await refused('mixtral', { hidden_size: 'wide' }, /hidden_size/)
  // Layers are made before the weights are looked for: a number out of all reason must not be tried.
  await refused('mixtral', { num_hidden_layers: 1e9 }, /num_hidden_layers/)
  await refused('bert', { num_hidden_layers: 1e9 }, /num_hidden_layers/)
  await refused('switch', { num_layers: 1e9 }, /num_layers/)
  await refused('switch', { num_decoder_layers: 1e9 }, /num_decoder_layers/)
  await refused('bert', { position_embedding_type: 'relative_key' }, /position_embedding_type: expected 'absolute'/)
  await refused('bert', { is_decoder: true }, /is_decoder/)
  await refused('bert', { problem_type: 'regression' }, /problem_type: 'regression' is not offered/)
  await refused('switch', { is_gated_act: true }, /is_gated_act/)
})

t.test('rope_parameters say the same as rope_theta and rope_scaling', async (t) => {
  const folder = await changed(t, 'mixtral', () => {})
  await changeConfig(folder, {
    rope_theta: undefined,
    rope_parameters: { rope_type: 'linear', rope_theta: 500, factor: 4 },
  })
  const { config } = await Decoder.fromPretrained(device, folder)
  t.strictSame([config.ropeTheta, config.ropeFactor], [500, 4])
})

t.test('a BERT encoder alone, in older spelling, gets a new head', async (t) => {
  const folder = await changed(t, 'bert', (tensors) => {
    const renamed: Tensors = new Map()
    for (const [name, tensor] of tensors) {
      if (name.startsWith('classifier')) continue
      const old = name.replace(/^bert\./, '').replace(/LayerNorm\.weight$/, 'LayerNorm.gamma')
      renamed.set(old.replace(/LayerNorm\.bias$/, 'LayerNorm.beta'), tensor)
    }
    renamed.set('embeddings.position_ids', { dtype: 'F32', shape: [1], data: Float32Array.of(0) })
    renamed.set('cls.predictions.bias', { dtype: 'F32', shape: [1], data: Float32Array.of(0) })
    return renamed
  })
  const whole = await weightsOf(await BertClassifier.fromPretrained(device, join(fixtures, 'bert')))
  const model = await BertClassifier.fromPretrained(device, folder, { labels: ['no', 'yes'], seed: 3 })
  const weights = await weightsOf(model)
  for (const [name, expected] of Object.entries(whole)) {
    if (!name.startsWith('head')) t.strictSame(weights[name], expected, name)
  }
  t.strictSame(model.head.weight.shape, [2, 20])
  t.ok(weights['head.weight']!.some((value) => value !== 0))
  const same = await BertClassifier.fromPretrained(device, folder, { labels: ['no', 'yes'], seed: 3 })
  t.strictSame(await weightsOf(same), weights, 'the same seed gives the same head')
  const saved = t.testdir({})
  await model.savePretrained(saved)
  t.strictSame((await BertClassifier.fromPretrained(device, saved)).config.labels, ['no', 'yes'])
})

t.test('the encoder of a Switch Transformer classifies', async (t) => {
  const options = { labels: ['a', 'b', 'c'], seed: 1 }
  for (const name of ['switch', 'switch-capacity-untied']) {
    const model = await SwitchEncoderClassifier.fromPretrained(device, join(fixtures, name), options)
    const units = [[3, 4, 5], [6]].map((ids, unit) => ({ ids: Int32Array.from(ids), unit }))
    const batch = () => textBatch(device, packBatch(units), Int32Array.of(0, 2))
    const logits = await values(device.scope(() => model.logits(batch(), evaluation())))
    t.equal(logits.length, 6)
    const saved = t.testdir({})
    await model.savePretrained(saved)
    const again = await SwitchEncoderClassifier.fromPretrained(device, saved)
    t.strictSame(again.labels, ['a', 'b', 'c'])
    t.strictSame(await values(device.scope(() => again.logits(batch(), evaluation()))), logits)
    const whole = await SwitchTransformer.fromPretrained(device, join(fixtures, name))
    t.strictSame((await weightsOf(model))['encoder.norm.weight'], (await weightsOf(whole))['encoder.norm.weight'])
  }
})

t.test('sequences of one unit do not see each other', async (t) => {
  const ids = (...list: number[]) => Int32Array.from(list)
  const [a, b, c] = [ids(3, 4, 5, 6), ids(7, 8), ids(9, 10, 11)]
  const users = packBatch([
    { ids: ids(...a, ...b), sequences: ids(4, 2), unit: 0 },
    { ids: c, sequences: ids(3), unit: 1 },
  ])
  const alone = packBatch([a, b, c].map((tokens, unit) => ({ ids: tokens, unit })))
  const decoder = await Decoder.fromPretrained(device, join(fixtures, 'mixtral'))
  const logitsOf = (packed: typeof users) =>
    values(device.scope(() => decoder.logits(tokenBatch(device, packed), evaluation())))
  t.strictSame(await logitsOf(users), await logitsOf(alone), 'causal language model')
  const losses = async (packed: typeof users) =>
    values(device.scope(() => decoder.loss(causalBatch(device, packed), evaluation())))
  const [first, second, third] = [...(await losses(alone))] as [number, number, number]
  const perUnit = await losses(users)
  t.ok(Math.abs(perUnit[0]! - (first + second) / 2) < 1e-5, "the mean over a unit's sequences")
  t.ok(Math.abs(perUnit[1]! - third) < 1e-6)

  const model = await SwitchTransformer.fromPretrained(device, join(fixtures, 'switch'))
  const targets = packBatch([
    { ids: ids(12, 13, 14, 1), sequences: ids(1, 3), unit: 0 },
    { ids: ids(15, 1), sequences: ids(2), unit: 1 },
  ])
  const targetsAlone = packBatch([ids(12), ids(13, 14, 1), ids(15, 1)].map((tokens, unit) => ({ ids: tokens, unit })))
  const pairs = (source: typeof users, target: typeof users) =>
    values(device.scope(() => model.logits(seq2seqBatch(device, source, target, 0), evaluation())))
  t.strictSame(await pairs(users, targets), await pairs(alone, targetsAlone), 'encoder-decoder')
  t.throws(() => seq2seqBatch(device, users, targetsAlone, 0), { code: 'SHAPE_MISMATCH' })
})

t.test('the model of a folder is found by its config.json', async (t) => {
  t.type(await modelFromPretrained(device, join(fixtures, 'bert')), BertClassifier)
  t.type(await modelFromPretrained(device, join(fixtures, 'olmoe'), 'causal-lm'), Decoder)
  t.type(await modelFromPretrained(device, join(fixtures, 'switch')), SwitchTransformer)
  const options = { labels: ['a', 'b', 'c', 'd'] }
  const model = await modelFromPretrained(device, join(fixtures, 'switch'), 'classification', options)
  t.type(model, SwitchEncoderClassifier)
  t.equal(model.head.weight.shape[0], 4)
  const refused = { code: 'MODEL_FORMAT' }
  const other = modelFromPretrained(device, join(fixtures, 'olmoe'), 'seq2seq')
  await t.rejects(other, { ...refused, message: /a model of type olmoe is for causal-lm, not for seq2seq/ })
  const folder = await changed(t, 'bert', () => {})
  await changeConfig(folder, { model_type: 'llama' })
  await t.rejects(modelFromPretrained(device, folder), { ...refused, message: /model_type: expected one of bert, / })
})
