import { join } from 'node:path'
import t from 'tap'
import { Module } from '../../lib/nn/module.js'
import type { TrainMessage } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { releasedWeights, tinyRun } from './support/runs.js'

const root = t.testdir()
const data = writeMails(root, 'mails.jsonl', 150)
const model = {
  modelType: 'switch-classifier',
  vocabularySize: 128,
  hiddenSize: 8,
  numLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 8,
  numExperts: 2,
  maxPositions: 32,
  dropout: 0.1,
}

t.test('the setting reaches the model and changes no bit of it', async (t) => {
  const turned: boolean[] = []
  const { setActivationCheckpointing } = Module.prototype
  t.teardown(() => {
    Module.prototype.setActivationCheckpointing = setActivationCheckpointing
  })
  Module.prototype.setActivationCheckpointing = function (on) {
    setActivationCheckpointing.call(this, on)
    turned.push(this.activationCheckpointing)
    return this
  }
  const run = async (name: string, options: { activationCheckpointing?: boolean }) => {
    const output = join(root, name)
    await train(tinyRun(data, output, { model, maxLength: 16, steps: 3, seed: 2, ...options }))
    return releasedWeights(output)
  }
  const kept = await run('kept', { activationCheckpointing: false })
  t.ok((await run('computed-again', { activationCheckpointing: true })).equals(kept))
  t.ok((await run('by-default', {})).equals(kept))
  t.strictSame(turned, [false, true, false], 'off by default')
})

t.test('what may be longer than a micro-batch is said, by public numbers', async (t) => {
  const warningsOf = async (name: string, maxTokensPerMicrobatch: number) => {
    const messages: TrainMessage[] = []
    const options = { steps: 1, maxLength: 16, maxTokensPerMicrobatch }
    await train({ ...tinyRun(data, join(root, name), options), onMessage: (message) => messages.push(message) })
    return messages.filter(({ level }) => level === 'warning').map(({ text }) => text)
  }
  t.match((await warningsOf('short', 15)).join(), /an example may have 16 tokens, .* more than 15.* Lower max-length/)
  t.strictSame(await warningsOf('long', 16), [])
})
