import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { openAdapted } from '../../lib/models/adapted-model.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { saveAdapters } from '../../lib/models/hugging-face/adapters.js'
import { modelFingerprint } from '../../lib/models/hugging-face/fingerprint.js'
import type { HuggingFaceModel } from '../../lib/models/hugging-face/hugging-face-model.js'
import { classesOfReplacedHead, openPretrainedClassifier } from '../../lib/models/pretrained-text-classifier.js'
import { SwitchEncoderClassifier } from '../../lib/models/switch-transformer.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { setTrainable } from '../../lib/nn/trainable.js'
import { tinyBert } from '../support/bert.js'
import { perturb } from '../support/token-model.js'

// A checkpoint with a head, and other classes than its own.

const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())
const root = t.testdir()
const two = ['no', 'yes']
const parameter = async (model: HuggingFaceModel, name: string) =>
  (await model.namedParameters().get(name)!.tensor.data()) as Float32Array

/** A folder with a head for three classes. */
async function threeClasses(name: string, change: object = {}): Promise<string> {
  const folder = join(root, name)
  using model = new BertClassifier(new Initializer(device, 1), tinyBert)
  perturb(device, model, 0.1)
  await model.savePretrained(folder)
  const path = join(folder, 'config.json')
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }))
  return folder
}

t.test('another number of classes: a new head on the encoder that was there', async (t) => {
  const folder = await threeClasses('three')
  using own = await openPretrainedClassifier(device, folder, 'bert')
  using model = await openPretrainedClassifier(device, folder, 'bert', { labels: two })
  t.same(model.labels, two)
  for (const name of ['pooler.weight', 'encoder.layers.1.feedForward.up.weight']) {
    t.same(await parameter(model, name), await parameter(own, name), name)
  }
  using again = await openPretrainedClassifier(device, folder, 'bert', { labels: two })
  using other = await openPretrainedClassifier(device, folder, 'bert', { labels: two, seed: 1 })
  t.same(await parameter(again, 'head.weight'), await parameter(model, 'head.weight'), 'from a seed')
  t.notSame(await parameter(other, 'head.weight'), await parameter(model, 'head.weight'))
  t.equal(await classesOfReplacedHead(folder, two), 3)
  t.equal(await classesOfReplacedHead(folder, ['x', 'y', 'z']), undefined)

  using renamed = await openPretrainedClassifier(device, folder, 'bert', { labels: ['x', 'y', 'z'] })
  t.same(await parameter(renamed, 'head.weight'), await parameter(own, 'head.weight'), 'as many classes: its own head')

  setTrainable(model, 'lora', new Initializer(device, 5), { head: /^(head|pooler)\./, rank: 2 })
  const adapters = join(root, 'adapters')
  await saveAdapters(adapters, model, { name: folder, fingerprint: await modelFingerprint(folder) })
  using opened = (await openAdapted(device, adapters, { base: folder })).model
  t.same(await parameter(opened, 'head.weight'), await parameter(model, 'head.weight'), 'and its adapters')
})

t.test('a head that its own config.json contradicts is refused', async (t) => {
  const folder = await threeClasses('contradicted', { id2label: { 0: 'a', 1: 'b', 2: 'c', 3: 'd' } })
  const refused = { code: 'MODEL_FORMAT', message: /expected classifier\.\w+ \[2.*got \[3.*belong together/ }
  await t.rejects(openPretrainedClassifier(device, folder, 'bert', { labels: two }), refused)
  await t.rejects(openPretrainedClassifier(device, folder, 'bert'), { code: 'MODEL_FORMAT' })
})

t.test('an encoder of a Switch Transformer, too', async (t) => {
  const fixture = new URL('../parity/fixtures/switch', import.meta.url).pathname
  const folder = join(root, 'switch')
  using model = await SwitchEncoderClassifier.fromPretrained(device, fixture, { labels: ['x', 'y', 'z'] })
  t.equal(await classesOfReplacedHead(fixture, two.concat('more')), undefined, 'it has none')
  await model.savePretrained(folder)
  using narrow = await openPretrainedClassifier(device, folder, 'switch_transformers', { labels: two })
  t.same(narrow.labels, two)
})
