import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { HuggingFaceTokenizer } from '../../lib/data/index.js'
import { Device } from '../../lib/engine/device.js'
import { openAdapted } from '../../lib/models/adapted-model.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Decoder } from '../../lib/models/decoder.js'
import { saveAdapters } from '../../lib/models/hugging-face/adapters.js'
import { modelFingerprint } from '../../lib/models/hugging-face/fingerprint.js'
import type { HuggingFaceModel } from '../../lib/models/hugging-face/hugging-face-model.js'
import { mergeModel } from '../../lib/models/merge.js'
import { openModel } from '../../lib/models/open-model.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from '../../lib/models/safetensors.js'
import { upcycle } from '../../lib/models/upcycle.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { adaptersOf, mergeAdapters } from '../../lib/nn/trainable.js'
import { adaptedModel, changedAdapters } from '../support/adapters.js'
import { tinyBert } from '../support/bert.js'
import { batchOf, examples } from '../support/models.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())
const root = t.testdir()
const units = examples([5, 9, 1, 17])

const dense = join(root, 'dense')
{
  using model = new BertClassifier(new Initializer(device, 1), tinyBert)
  perturb(device, model, 0.1)
  await model.savePretrained(dense)
}
const sparse = join(root, 'sparse')
{
  using model = await upcycle(device, dense, { numExperts: 3, layers: 'all' })
  perturb(device, model, 0.1)
  await model.savePretrained(sparse)
}

const adapted = (folder: string) => adaptedModel(device, folder)

async function saved(folder: string, name: string): Promise<{ model: HuggingFaceModel; adapters: string }> {
  const model = await adapted(folder)
  const adapters = join(root, name)
  await saveAdapters(adapters, model, { name: folder, fingerprint: await modelFingerprint(folder) })
  return { model, adapters }
}

const logits = (model: HuggingFaceModel) =>
  device.scope(() =>
    (model as BertClassifier).logits(batchOf(device, units), { tape: new Tape(device), training: false }).data(),
  ) as Promise<Float32Array>
const difference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)
const json = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'))

t.test('adapters in the layout of PEFT, merged: the logits of the model that was trained', async (t) => {
  for (const [folder, matrices] of [
    [dense, 12],
    [sparse, 8 + 12],
  ] as const) {
    const { model, adapters } = await saved(folder, `adapters-${matrices}`)
    t.same(readdirSync(adapters).sort(), ['adapter_config.json', 'adapter_model.safetensors', 'config.json'])
    const before = await logits(model)
    using plain = await openModel(device, folder)
    t.ok(difference(await logits(plain), before) > 0.01, 'the adapters do something')

    const output = join(root, `merged-${matrices}`)
    t.same(await mergeModel(device, adapters, output), { base: folder, merged: matrices })
    t.same(readdirSync(output).sort(), ['config.json', 'model.safetensors'])
    using merged = await openModel(device, output)
    t.ok(difference(await logits(merged), before) < 1e-5)
    using opened = (await openAdapted(device, adapters)).model
    t.same(await logits(opened), await logits(merged), 'opened without a merged folder: the same')
    mergeAdapters(model)
    for (const [name, { tensor }] of model.namedParameters()) {
      t.same(await tensor.data(), await merged.namedParameters().get(name)!.tensor.data(), name)
    }
  }
  const settings = json(root, 'adapters-12', 'adapter_config.json')
  t.match(settings, {
    peft_type: 'LORA',
    task_type: 'SEQ_CLS',
    base_model_name_or_path: './dense',
    r: 2,
    lora_alpha: 6,
    modules_to_save: ['bert.pooler.dense', 'classifier'],
  })
  t.equal(settings.target_modules.length, 12)
  t.ok(settings.target_modules.includes('bert.encoder.layer.1.attention.output.dense'))
})

t.test('adapters of a language model, in the type of its weights', async (t) => {
  const fixture = new URL('../parity/fixtures/mixtral-bfloat16-sharded', import.meta.url).pathname
  const model = await adapted(fixture)
  t.ok(adaptersOf(model).size > 6)
  const adapters = join(root, 'adapters-mixtral')
  await saveAdapters(adapters, model, { name: fixture, fingerprint: await modelFingerprint(fixture) })
  t.match(json(adapters, 'adapter_config.json'), { task_type: 'CAUSAL_LM', modules_to_save: ['lm_head'] })
  const output = join(root, 'merged-mixtral')
  await mergeModel(device, adapters, output, { base: fixture })
  t.match(json(output, 'config.json'), { model_type: 'mixtral' })
  await using file = await SafetensorsFile.open(join(output, 'model.safetensors'))
  t.ok([...file.tensors.values()].every(({ dtype }) => dtype === 'BF16'))
  await mergeModel(device, adapters, join(root, 'merged-wide'), { base: fixture, dtype: 'F32' })
  mergeAdapters(model)
  using read = await Decoder.fromPretrained(device, output)
  using wide = await Decoder.fromPretrained(device, join(root, 'merged-wide'))
  for (const [name, { tensor }] of model.namedParameters()) {
    const exact = (await tensor.data()) as Float32Array
    const got = (await read.namedParameters().get(name)!.tensor.data()) as Float32Array
    t.ok(
      exact.every((value, i) => Math.abs(value - got[i]!) <= Math.abs(value) / 256),
      `${name}: rounded once, after the sum`,
    )
    t.same(await wide.namedParameters().get(name)!.tensor.data(), exact, `${name}: not rounded where that is asked for`)
  }
})

t.test('the tokenizer and the certificate come along; the certificate of the base does not', async (t) => {
  const { tokenizer } = json(new URL('../data/fixtures/word-piece.json', import.meta.url).pathname)
  const base = join(root, 'base-with-more')
  cpSync(dense, base, { recursive: true })
  writeFileSync(join(base, 'tokenizer.json'), '{"of":"the base"}')
  writeFileSync(join(base, 'vocab.txt'), 'words')
  writeFileSync(join(base, 'certificate.json'), '{"of":"the base"}')
  const model = await adapted(base)
  const adapters = join(root, 'adapters-with-more')
  const of = { name: base, fingerprint: await modelFingerprint(base) }
  await saveAdapters(adapters, model, of, new HuggingFaceTokenizer(tokenizer, { maxLength: 9 }))
  await mergeModel(device, adapters, join(root, 'more'))
  t.same(readdirSync(join(root, 'more')).sort(), [
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
    'vocab.txt',
  ])
  t.equal(json(root, 'more', 'tokenizer.json').of, undefined)
  writeFileSync(join(adapters, 'certificate.json'), '{"of":"the adapters"}')
  await mergeModel(device, adapters, join(root, 'more'), { overwrite: true })
  t.same(json(root, 'more', 'certificate.json'), { of: 'the adapters' })

  const copy = await mergeModel(device, join(root, 'more'), join(root, 'copied'))
  t.same(copy, { base: undefined, merged: 0 }, 'plain already')
  await t.rejects(mergeModel(device, join(root, 'more'), join(root, 'x'), { dtype: 'BF16' }), {
    message: /plain weights already/,
  })
  for (const name of readdirSync(join(root, 'more'))) {
    t.ok(readFileSync(join(root, 'more', name)).equals(readFileSync(join(root, 'copied', name))), name)
  }
})

t.test('adapters that PEFT made, without a config.json or a fingerprint', async (t) => {
  const { model, adapters } = await saved(dense, 'adapters-of-peft')
  const bare = join(root, 'bare')
  mkdirSync(bare)
  cpSync(join(adapters, 'adapter_config.json'), join(bare, 'adapter_config.json'))
  await using file = await SafetensorsFile.open(join(adapters, 'adapter_model.safetensors'))
  const all = new Map<string, TensorSource>()
  for (const [key, { dtype, shape }] of file.tensors) all.set(key, { dtype, shape, data: await file.readBytes(key) })
  await writeSafetensors(join(bare, 'adapter_model.safetensors'), all)
  using opened = (await openAdapted(device, bare, { base: dense })).model
  t.ok(difference(await logits(opened), await logits(model)) < 1e-5)
})

t.test('what is refused, and nothing is left', async (t) => {
  const { adapters } = await saved(dense, 'adapters-refused')
  const before = readdirSync(root).sort()
  const aQuery = 'base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight'
  const without = (key: string) => (all: Map<string, TensorSource>) =>
    new Map([...all].filter(([name]) => name !== key))
  const reshaped = (all: Map<string, TensorSource>) =>
    new Map([...all, [aQuery, { ...all.get(aQuery)!, shape: [12, 2] } as TensorSource]])
  const renamed = (all: Map<string, TensorSource>) =>
    new Map([...all].map(([name, source]) => [name.replace('.self.query.', '.self.quarry.'), source]))
  const filled = (value: number) => (all: Map<string, TensorSource>) => {
    const name = aQuery.replace('lora_A', 'lora_B')
    return new Map([...all, [name, { ...all.get(name)!, data: async () => new Float32Array(24).fill(value) }]])
  }
  let copies = 0
  for (const [change, message] of [
    [{ settings: { peft_type: 'IA3' } }, /adapter_config\.json: peft_type/],
    [{ settings: { use_dora: true } }, /use_dora: true is not offered/],
    [{ settings: { use_rslora: true } }, /use_rslora: true is not offered/],
    [{ settings: { alpha_pattern: { query: 3 } } }, /alpha_pattern: \{"query":3\} is not offered/],
    [{ settings: { bias: 'all' } }, /bias: "all" is not offered/],
    [{ settings: { lora_alpha: 1e308 } }, /lora_alpha \/ r: expected a number that float32 holds, got 1e\+308 \/ 2/],
    [{ settings: { lora_alpha: 1e-308 } }, /lora_alpha \/ r: expected a number that float32 holds/],
    [{ tensors: filled(Number.NaN) }, /query\.lora_B\.weight: 24 of 24 values are not finite/],
    [{ tensors: filled(3e38) }, /lora_A\.weight.* makes weights that are not finite/],
    [{ settings: { r: 3 } }, /expected base_model.*lora_A\.weight \[3, 12\], got \[2, 12\]/],
    [{ settings: { base_model_name_or_path: join(root, 'nowhere') } }, /holds adapters of .*nowhere.*--base/],
    [{ settings: { base_model_name_or_path: sparse } }, /sparse is not the model that the adapters/],
    [{ tensors: without(aQuery) }, /query\.lora_B\.weight is there without .*query\.lora_A\.weight/],
    [{ tensors: without(aQuery.replace('lora_A', 'lora_B')) }, /query\.lora_A\.weight is there without/],
    [{ tensors: reshaped }, /expected .*lora_A\.weight \[2, 12\], got \[12, 2\]/],
    [{ tensors: renamed }, /quarry\.lora_A\.weight has no place in the model/],
  ] as const) {
    const folder = await changedAdapters(adapters, join(root, `refused-${copies++}`), change)
    using own = Device.open('cpu', { threads: 1 })
    await t.rejects(mergeModel(own, folder, join(root, 'deep', 'out')), { message }, String(message))
    await t.rejects(openAdapted(own, folder), { message }, String(message))
    t.equal(own.memory().live, 0, 'nothing is left on the device')
  }
  await t.rejects(openModel(device, adapters), { code: 'MODEL_FORMAT', message: /no whole model.*dp-moe merge/ })
  await t.rejects(mergeModel(device, adapters, join(root, 'sparse')), { code: 'FILE_EXISTS' })
  await t.rejects(mergeModel(device, adapters, join(root, 'out'), { signal: AbortSignal.abort() }), {
    name: 'AbortError',
  })
  t.same(
    readdirSync(root)
      .filter((name) => !/^refused-\d+$/.test(name))
      .sort(),
    before,
  )

  using plain = await openModel(device, dense)
  const of = { name: dense, fingerprint: '' }
  await t.rejects(saveAdapters(join(root, 'none'), plain, of), /model with adapters, got one without/)
  using two = await adapted(dense)
  const first = adaptersOf(two).keys().next().value!
  for (const layer of two.modules()) {
    if (layer instanceof Linear && layer.weight === first) layer.adapt(new Initializer(device, 1), { rank: 1 })
  }
  await t.rejects(saveAdapters(join(root, 'none'), two, of), /one rank and scale, got several/)
})
