import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { HuggingFaceTokenizer } from '../../lib/data/index.js'
import { Device } from '../../lib/engine/device.js'
import { findAdapters } from '../../lib/models/adapted-model.js'
import { noteBase } from '../../lib/models/adapter-base.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { saveAdapters } from '../../lib/models/hugging-face/adapters.js'
import { modelFingerprint } from '../../lib/models/hugging-face/fingerprint.js'
import { mergeModel } from '../../lib/models/merge.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { type AdapterChange, adaptedModel, changedAdapters, type Tensors } from '../support/adapters.js'
import { tinyBert } from '../support/bert.js'

const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())
const root = t.testdir()
const base = join(root, 'base')
const adapters = join(root, 'adapters')
{
  using model = new BertClassifier(new Initializer(device, 1), tinyBert)
  await model.savePretrained(base)
  using trained = await adaptedModel(device, base)
  await saveAdapters(adapters, trained, { name: base, fingerprint: await modelFingerprint(base) })
}
const weights = () => readFileSync(join(base, 'model.safetensors'))

t.test('the model that the adapters belong to is never overwritten', async (t) => {
  const before = weights()
  symlinkSync(base, join(root, 'link'))
  const linked = join(root, 'linked')
  mkdirSync(linked)
  for (const name of ['config.json', 'model.safetensors']) symlinkSync(join(base, name), join(linked, name))
  const refused = { code: 'FILE_EXISTS', message: /the model that is read.*Choose another folder/ }
  for (const target of [base, join(root, 'link'), join(base, '..', 'base'), join(base, 'inside', 'deep')]) {
    await t.rejects(mergeModel(device, adapters, target, { overwrite: true }), refused, target)
  }
  t.notOk(existsSync(join(base, 'inside')))
  const itself = { message: /base is the model that is read/ }
  await t.rejects(mergeModel(device, adapters, base, { overwrite: true }), itself)
  const elsewhere = { base: linked, overwrite: true }
  await t.rejects(mergeModel(device, adapters, base, elsewhere), refused, 'its files lie in the folder')
  const within = join(root, 'around', 'x.safetensors')
  cpSync(base, within, { recursive: true })
  cpSync(join(base, 'config.json'), join(root, 'around', 'config.json'))
  const around = { base: within, overwrite: true }
  await t.rejects(mergeModel(device, adapters, join(root, 'around'), around), refused, 'it lies in the folder')
  t.ok(weights().equals(before))
  await mergeModel(device, adapters, join(root, 'out'))
  await mergeModel(device, adapters, join(root, 'out'), { overwrite: true })
})

t.test('a base in a folder: its path is not written, and it is found where it fits', async (t) => {
  const read = (folder: string) => JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))
  t.equal(read(adapters).base_model_name_or_path, './base')
  using trained = await adaptedModel(device, base)
  const fingerprint = await modelFingerprint(base)
  const ofHub = join(root, 'of-hub')
  await saveAdapters(ofHub, trained, { name: 'owner/base', fingerprint })
  t.equal(read(ofHub).base_model_name_or_path, 'owner/base', 'a name on the hub is public')

  const run = join(root, 'elsewhere', 'run')
  const release = join(run, 'release')
  cpSync(adapters, release, { recursive: true })
  const away = { code: 'FILE_NOT_FOUND', message: /adapters of \.\/base, and no model is there.*dp-moe merge --base/ }
  await t.rejects(findAdapters(release), away)
  t.equal((await findAdapters(release, { base })).baseFolder, base)
  t.equal((await findAdapters(adapters)).baseFolder, base, 'beside the adapters')

  mkdirSync(join(run, 'private'))
  await noteBase(release, base)
  t.equal((await findAdapters(release)).baseFolder, base, 'as the run noted')
  rmSync(join(run, 'private'), { recursive: true })

  const other = join(run, 'base')
  cpSync(base, other, { recursive: true })
  writeFileSync(join(other, 'config.json'), readFileSync(join(other, 'config.json'), 'utf8').replace('{', '{ '))
  await t.rejects(findAdapters(release), { code: 'MODEL_FORMAT', message: /run\/base is not the model that.*--base/ })
  const here = process.cwd()
  process.chdir(root)
  t.teardown(() => process.chdir(here))
  t.equal((await findAdapters(release)).baseFolder, base, 'in the working directory')
})

t.test('adapters of which some are missing, or there twice', async (t) => {
  const query = 'base_model.model.bert.encoder.layer.0.attention.self.query'
  const pick = (keep: (name: string) => boolean) => (all: Tensors) => new Map([...all].filter(([name]) => keep(name)))
  const ofQuery = pick((name) => name.startsWith(query))
  const without = (part: string) => pick((name) => !name.includes(part))
  const again = (rename: (name: string) => string) => (all: Tensors) =>
    new Map([...all].flatMap(([name, source]) => [[name, source] as const, [rename(name), source] as const]))
  const bare = (name: string) => name.replace('base_model.model.', '')
  const withWhole = (all: Tensors) => {
    const values = new Float32Array(144)
    return new Map([...all, [`${query}.weight`, { dtype: 'F32', shape: [12, 12], data: async () => values } as const]])
  }
  const named: string[] = JSON.parse(readFileSync(join(adapters, 'adapter_config.json'), 'utf8')).target_modules
  const foreign = { metadata: { format: 'pt' }, settings: { base_model_name_or_path: base } }
  const peft = (target_modules: unknown, modules_to_save: unknown = null) => ({
    metadata: foreign.metadata,
    settings: { ...foreign.settings, target_modules, modules_to_save },
  })
  const inLayers = (layers_to_transform: unknown, layers_pattern: unknown = null) => ({
    metadata: foreign.metadata,
    settings: { ...peft(['query']).settings, layers_to_transform, layers_pattern },
  })
  const peftWith = (settings: object) => ({
    metadata: foreign.metadata,
    settings: { ...peft(['query']).settings, ...settings },
  })
  const merge = async (change: AdapterChange) => {
    const folder = await changedAdapters(adapters, join(root, 'changed'), change)
    try {
      return await mergeModel(device, folder, join(root, 'of-changed'), { overwrite: true })
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  for (const [change, message] of [
    [{ tensors: () => new Map() }, /holds no adapters/],
    [{ tensors: pick((name) => name.includes('classifier')) }, /holds no adapters/],
    [{ tensors: ofQuery }, /target_modules.*layer\.0\.attention\.self\.key'.*no adapter/],
    [{ tensors: without('.layer.1.output.dense.') }, /target_modules.*layer\.1\.output\.dense'.*no adapter/],
    [{ tensors: without('classifier.bias') }, /modules_to_save.*'classifier'.*no classifier\.bias/],
    [{ settings: { target_modules: ['nothing'] } }, /lora_A\.weight, which target_modules .* leaves out/],
    [{ settings: { target_modules: [...named, 'nothing'] } }, /target_modules.*'nothing'.*no such layer/],
    [{ tensors: again(bare) }, /both base_model.*and bert.*change bert/],
    [{ tensors: withWhole }, /both .*query\.lora_A.*and .*query\.weight/],
    [{ ...foreign, tensors: again(bare) }, /both base_model.*and bert.*change bert/],
    [{ ...peft(['query', 'key']), tensors: ofQuery }, /target_modules.*'key'.*no adapter/],
    [{ ...peft(['query'], ['classifier']), tensors: ofQuery }, /modules_to_save.*'classifier'.*no classifier/],
    [{ settings: { target_modules: 3 } }, /adapter_config\.json: target_modules/],
    [
      { ...inLayers([1]), tensors: ofQuery },
      /layer\.0.*query\.lora_A\.weight, which layers_to_transform .* leaves out/,
    ],
    [{ ...inLayers(1), tensors: ofQuery }, /which layers_to_transform .* leaves out/],
    [{ ...inLayers([0], 'layers'), tensors: ofQuery }, /which layers_to_transform .* leaves out/],
    [{ ...inLayers([0, 1]), tensors: ofQuery }, /target_modules.*'query'.*no adapter of .*layer\.1/],
    [{ ...peft(['key']), tensors: ofQuery }, /query\.lora_A\.weight, which target_modules .* leaves out/],
    [{ settings: { exclude_modules: ['query'] } }, /query\.lora_A\.weight, which exclude_modules .* leaves out/],
    ...['x', -1, 1.5, true, { a: 1 }, [null], [1e300], ['0']].map(
      (layers) => [{ ...inLayers(layers), tensors: ofQuery }, /adapter_config\.json: layers_to_transform/] as const,
    ),
    [{ ...inLayers([0], '(a+)+$'), tensors: ofQuery }, /layers_pattern.*a part of a name/],
  ] as const) {
    await t.rejects(merge(change), { code: 'MODEL_FORMAT', message }, String(message))
    t.notOk(existsSync(join(root, 'of-changed')))
  }
  // PEFT names layers by their last part, some that a model lacks, or by a pattern; a part of the layers may be chosen.
  for (const target_modules of [['query', 'score'], '.*query', 'all-linear', null]) {
    t.match(await merge({ ...peft(target_modules), tensors: ofQuery }), { merged: 1 })
  }
  for (const layers of [
    inLayers([0]),
    inLayers(0),
    inLayers([0, 0]),
    inLayers([]),
    inLayers(null),
    inLayers([0, 99]),
    inLayers([0], 'layer'),
    inLayers([0], ['layers', 'layer']),
    inLayers([0], ''),
    inLayers([0], ['self', 'layer', 'attention']),
    inLayers([0], 'encoder.layer'),
    peftWith({ exclude_modules: '.*key' }),
    peftWith({ exclude_modules: ['key'] }),
    peftWith({
      target_modules: ['query', 'query'],
      layers_to_transform: Array.from({ length: 1e5 }, (_, i) => i).filter((i) => i !== 1),
    }),
  ]) {
    t.match(await merge({ ...layers, tensors: ofQuery }), { merged: 1 }, JSON.stringify(layers.settings))
  }
  const withHead = pick((name) => name.startsWith(query) || name.includes('classifier'))
  const both = { ...peft(['query', 'classifier'], ['classifier']), tensors: withHead }
  t.match(await merge(both), { merged: 1 }, 'what is kept whole has no adapter')
  t.match(await merge({}), { merged: 12 })
})

t.test('a layer that is kept whole is written whole; one that has an adapter beside is refused', async (t) => {
  using model = await adaptedModel(device, base)
  const of = { name: base, fingerprint: await modelFingerprint(base) }
  model.namedParameters().get('head.bias')!.freeze()
  const half = join(root, 'half-frozen')
  await saveAdapters(half, model, of)
  await mergeModel(device, half, join(root, 'half-merged'))
  const bias = [...model.namedParameters()].find(([name]) => name.endsWith('attention.query.bias'))![1]
  bias.trainable = true
  await t.rejects(saveAdapters(join(root, 'both'), model, of), { message: /query\.bias trains beside an adapter/ })
})

t.test('paths that other programs left in settings are not written again; names on the hub are', async (t) => {
  const { tokenizer } = JSON.parse(readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'))
  for (const [name, isKept] of [
    ['/home/me/secret', false],
    ['../secret', false],
    ['~/models/secret', false],
    ['C:\\me\\secret', false],
    ['models/of/secret', false],
    ['owner/secret', true],
    ['secret', true],
  ] as const) {
    const folder = join(root, 'with-path')
    cpSync(base, folder, { recursive: true })
    const settings = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8'))
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...settings, _name_or_path: name }))
    using model = await adaptedModel(device, folder)
    const tokenizerConfig = { name_or_path: name, tokenizer_file: name, padding_side: 'left' }
    const own = new HuggingFaceTokenizer(tokenizer, { maxLength: 9, tokenizerConfig })
    const written = [join(root, 'path-adapters'), join(root, 'path-model')] as const
    await saveAdapters(written[0], model, { name: 'owner/base', fingerprint: 'f' }, own)
    await model.savePretrained(written[1], { tokenizer: own })
    for (const folder of written) {
      for (const file of ['config.json', 'tokenizer_config.json']) {
        t.equal(readFileSync(join(folder, file), 'utf8').includes('secret'), isKept, `${name} in ${file}`)
      }
      t.match(JSON.parse(readFileSync(join(folder, 'tokenizer_config.json'), 'utf8')), { padding_side: 'left' })
    }
  }
})

t.test('a weight that the written type does not hold: refused, and nothing is left', async (t) => {
  for (const [largest, below, dtype] of [
    [65520, 65519, 'F16'],
    [2 ** 128 - 2 ** 119, 2 ** 128 - 2 ** 120, 'BF16'],
    [Number.POSITIVE_INFINITY, 3.4e38, 'F32'],
    [Number.NaN, -3.4e38, 'F32'],
  ] as const) {
    using model = new BertClassifier(new Initializer(device, 1), tinyBert)
    model.head.bias!.tensor.write(new Float32Array([0, -largest, 0]))
    const folder = join(root, `large-${dtype}`)
    const message = /head\.bias: (-Infinity|NaN|-?[\de.+]+) is not finite as/
    await t.rejects(
      model.savePretrained(folder, { dtype }),
      { code: 'INVALID_ARGUMENT', message },
      `${largest} ${dtype}`,
    )
    t.same(readdirSync(folder), [])
    model.head.bias!.tensor.write(new Float32Array([0, -below, 0]))
    await model.savePretrained(folder, { dtype })
    using _ = await BertClassifier.fromPretrained(device, folder)
    rmSync(folder, { recursive: true })
  }
})
