import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { WordHashTokenizer } from '../../lib/data/index.js'
import { roundToBfloat16 } from '../../lib/engine/bfloat16.js'
import { Device } from '../../lib/engine/device.js'
import { bytesOf } from '../../lib/files.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { roundToFloat16 } from '../../lib/models/half-precision.js'
import { openModel } from '../../lib/models/open-model.js'
import { fromPretrained, savePretrained } from '../../lib/models/pretrained.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from '../../lib/models/safetensors.js'
import { createClassifier, parseClassifierConfig } from '../../lib/models/text-classifier.js'
import { upcycle } from '../../lib/models/upcycle.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())
const root = t.testdir()
const fixture = (name: string) => fileURLToPath(new URL(`../parity/fixtures/${name}`, import.meta.url))
const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))

let copies = 0
/** A copy of a model folder whose single weight file went through `change`, in a type. */
async function changed(
  folder: string,
  change: (name: string, values: Float32Array) => void,
  dtype: 'F32' | 'BF16' | 'F16' = 'F32',
): Promise<string> {
  const copy = join(root, `copy-${copies++}`)
  cpSync(folder, copy, { recursive: true })
  await using file = await SafetensorsFile.open(join(folder, 'model.safetensors'))
  const tensors = new Map<string, TensorSource>()
  for (const [name, { shape }] of file.tensors) {
    const values = await file.readFloat32(name)
    change(name, values)
    const rounded = { F32: () => values, BF16: () => roundToBfloat16(values), F16: () => roundToFloat16(values) }
    tensors.set(name, { dtype, shape, data: bytesOf(rounded[dtype]()) })
  }
  await writeSafetensors(join(copy, 'model.safetensors'), tensors)
  return copy
}

function withConfig(folder: string, change: object): string {
  const copy = join(root, `copy-${copies++}`)
  cpSync(folder, copy, { recursive: true })
  writeFileSync(join(copy, 'config.json'), JSON.stringify({ ...configOf(folder), ...change }))
  return copy
}

t.test('weights that are not finite are refused: which tensor, how many', async (t) => {
  const bert = fixture('bert')
  const tensor = 'bert.encoder.layer.1.output.dense.weight'
  for (const [dtype, values, says] of [
    [
      'F32',
      [Number.NaN],
      /copy-\d+\/model\.safetensors: bert\.encoder\.layer\.1\.output\.dense\.weight: 1 of 560 values are not finite \(NaN: 1\)/,
    ],
    ['F32', [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY], /2 of 560 values are not finite \(infinite: 2\)/],
    ['BF16', [Number.NaN, 1, Number.NEGATIVE_INFINITY, Number.NaN], /3 of 560 .* \(NaN: 2, infinite: 1\)/],
    ['F16', [Number.NaN, Number.POSITIVE_INFINITY], /2 of 560 .* \(NaN: 1, infinite: 1\)/],
  ] as const) {
    for (const at of [0, 560 - values.length]) {
      const folder = await changed(bert, (name, all) => name === tensor && all.set(values, at), dtype)
      await t.rejects(openModel(device, folder), { code: 'MODEL_FORMAT', message: says }, `${dtype} ${values}`)
    }
  }
  const largest = await changed(
    bert,
    (name, all) => name === tensor && all.set([3.4028234e38, -3.4028234e38, 1e-45, -0]),
  )
  await t.resolves(openModel(device, largest))
})

t.test('of every kind: experts, shards of one layer, a model of our own', async (t) => {
  for (const [name, tensor] of [
    ['olmoe', /experts\.3\.up_proj/],
    ['switch', /encoder\.block\.1\.layer\.1\.mlp\.experts\.expert_2\.wo/],
  ] as const) {
    const folder = await changed(fixture(name), (tensorName, all) => {
      if (tensor.test(tensorName)) all[all.length - 1] = Number.NaN
    })
    await t.rejects(openModel(device, folder), { code: 'MODEL_FORMAT', message: tensor }, name)
  }
  const shape = { vocabularySize: 64, hiddenSize: 8, numExperts: 2, numLabels: 2 }
  const config = parseClassifierConfig({ modelType: 'mixture-classifier', ...shape }, 'here')
  const model = createClassifier(device, config, 0)
  const tokenizer = new WordHashTokenizer({ vocabularySize: 64 })
  const own = join(root, 'own')
  await savePretrained(own, { model, config, labels: ['a', 'b'], tokenizer, bag: undefined })
  await t.resolves(fromPretrained(device, own))
  const broken = await changed(own, (name, all) => {
    if (/router/.test(name)) all[3] = Number.NEGATIVE_INFINITY
  })
  await t.rejects(fromPretrained(device, broken), { code: 'MODEL_FORMAT', message: /router\.weight: 1 of 16 values/ })
})

t.test('what a checkpoint holds beside the model may be anything', async (t) => {
  const headless = await changed(fixture('bert'), () => {})
  await using file = await SafetensorsFile.open(join(headless, 'model.safetensors'))
  const tensors = new Map<string, TensorSource>()
  for (const [name, { dtype, shape }] of file.tensors)
    tensors.set(name, { dtype, shape, data: await file.readBytes(name) })
  tensors.set('cls.predictions.bias', { dtype: 'F32', shape: [1], data: new Float32Array([Number.NaN]) })
  await writeSafetensors(join(headless, 'model.safetensors'), tensors)
  await t.resolves(openModel(device, headless))
})

t.test('two classes of one name are refused, unless other names are given', async (t) => {
  for (const [id2label, message] of [
    [{ 0: 'good', 1: 'bad', 2: 'good' }, /config\.json: id2label: 0 and 2 are both 'good'/],
    [{ 0: '', 1: '', 2: 'x' }, /id2label: 0 and 1 are both ''/],
  ] as const) {
    const folder = withConfig(fixture('bert'), { id2label })
    await t.rejects(BertClassifier.fromPretrained(device, folder), { code: 'MODEL_FORMAT', message })
    const model = await BertClassifier.fromPretrained(device, folder, { labels: ['a', 'b', 'c'] })
    t.same(model.labels, ['a', 'b', 'c'])
    model[Symbol.dispose]()
  }
})

t.test('upcycling keeps the settings that are not read', async (t) => {
  const more = {
    id2label: { 0: 'x', 1: 'y', 2: 'z' },
    label2id: { x: 0, y: 1, z: 2 },
    _name_or_path: 'somewhere/else',
    pad_token_id: 5,
    gradient_checkpointing: false,
    task_specific_params: { anything: [1, 2] },
  }
  const dense = withConfig(fixture('bert'), more)
  const model = await upcycle(device, dense, { numExperts: 2 })
  const folder = join(root, 'upcycled')
  await model.savePretrained(folder)
  const { architectures, model_type, torch_dtype, dtype, num_experts, num_experts_per_tok, moe_layers, ...kept } =
    configOf(folder)
  t.match(kept, more)
  const before = configOf(dense)
  for (const name of ['architectures', 'model_type', 'torch_dtype', 'dtype']) delete before[name]
  t.match(kept, before, 'and those of the checkpoint')
  t.same([model_type, num_experts, num_experts_per_tok, moe_layers], ['bert_moe', 2, 1, [1]])
  t.same([architectures, dtype ?? torch_dtype], [['BertMoeForSequenceClassification'], 'float32'])
})

t.test('a model that cannot be made or filled leaves nothing on the device', async (t) => {
  const bert = fixture('bert')
  const weights = readFileSync(join(bert, 'model.safetensors')).byteLength
  for (const share of [0.01, 0.3, 0.6, 0.95]) {
    using small = Device.open('cpu', { threads: 1, memoryLimit: Math.floor(share * weights) })
    await t.rejects(openModel(small, bert), { code: 'OUT_OF_MEMORY' }, `${share} of the weights`)
    t.equal(small.memory().live, 0)
  }
  const damaged = await changed(bert, (_, values) => values.fill(Number.NaN))
  const ofExperts = await changed(fixture('bert'), () => {})
  {
    using model = await upcycle(device, ofExperts, { numExperts: 3 })
    await model.savePretrained(ofExperts)
  }
  const damagedExperts = await changed(ofExperts, (_, values) => values.fill(Number.NaN))
  for (const [folder, releaseLoad] of [
    [damaged, false],
    [damagedExperts, true],
  ] as const) {
    using other = Device.open('cpu', { threads: 1 })
    await t.rejects(BertClassifier.fromPretrained(other, folder, { releaseLoad }), { code: 'MODEL_FORMAT' })
    t.equal(other.memory().live, 0)
  }
})
