import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { roundToBfloat16 } from '../../lib/engine/bfloat16.js'
import { Device } from '../../lib/engine/device.js'
import { openModel } from '../../lib/models/open-model.js'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-convert-'))
const file = (...names: string[]) => join(folder, ...names)
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => {
  device.close()
  cli.remove()
  rmSync(folder, { recursive: true })
})

const fixture = (name: string) => fileURLToPath(new URL(`../parity/fixtures/${name}`, import.meta.url))
const { tokenizer } = JSON.parse(
  readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'),
) as { tokenizer: object }

/** A copy of a tiny random checkpoint with a tokenizer. */
function modelOf(name: string, copy: string, change: object = {}): string {
  mkdirSync(file(copy))
  for (const one of readdirSync(fixture(name))) {
    if (!['case.json', 'expected.safetensors'].includes(one)) cpSync(join(fixture(name), one), file(copy, one))
  }
  const config = { ...JSON.parse(readFileSync(file(copy, 'config.json'), 'utf8')), ...change }
  writeFileSync(file(copy, 'config.json'), JSON.stringify(config))
  writeFileSync(file(copy, 'tokenizer.json'), JSON.stringify(tokenizer))
  writeFileSync(file(copy, 'tokenizer_config.json'), '{"do_lower_case": true}')
  return file(copy)
}

/** Every weight of a model folder by its name in the model. */
async function weightsOf(path: string): Promise<Map<string, Float32Array>> {
  using model = await openModel(device, path)
  const weights = new Map<string, Float32Array>()
  for (const [name, { tensor }] of model.namedParameters()) weights.set(name, (await tensor.data()) as Float32Array)
  return weights
}

const widened = (rounded: Uint16Array) => new Float32Array(Uint32Array.from(rounded, (bits) => bits << 16).buffer)
const config = (path: string) => JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'))

t.test('a model of each family comes out with the weights and settings that went in', async (t) => {
  const names = ['bert-sharded-tanh-gelu', 'mixtral-bfloat16-sharded', 'olmoe', 'qwen3-moe-dense-tied', 'switch']
  for (const name of names) {
    const source = modelOf(name, name)
    const output = file('same', name)
    const { code, stdout, stderr } = await cli.run(['convert', source, '--output', output, '--json'])
    t.match({ code, stderr }, { code: 0, stderr: '' }, name)
    const weights = await weightsOf(source)
    t.same(await weightsOf(output), weights)
    const parameters = [...weights.values()].reduce((sum, { length }) => sum + length, 0)
    t.same(JSON.parse(stdout), {
      output,
      modelType: config(source).model_type,
      parameters,
      newTensors: [],
      dtype: 'float32',
    })
    t.match(config(output), { model_type: config(source).model_type, architectures: config(source).architectures })
    t.same(readdirSync(output).sort(), ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'])
    for (const one of ['tokenizer.json', 'tokenizer_config.json']) {
      t.same(readFileSync(join(output, one)), readFileSync(join(source, one)))
    }
  }
  t.same(readdirSync(file('same')).sort(), [...names].sort(), 'nothing beside them')
})

t.test('another type in shards', async (t) => {
  const source = file('olmoe')
  const output = file('bfloat16')
  const flags = ['--dtype', 'bfloat16', '--max-shard-bytes', '8000']
  const { code, stdout } = await cli.run(['convert', source, '--output', output, ...flags])
  t.equal(code, 0)
  t.match(stdout, /^model +.*bfloat16\ntype +olmoe, bfloat16\nweights +\d+\n$/)
  const shards = readdirSync(output).filter((name) => /^model-0000\d-of-0000\d\.safetensors$/.test(name))
  t.ok(shards.length > 1)
  t.ok(shards.every((name) => readFileSync(join(output, name)).length < 8000 + 5000))
  t.ok(existsSync(join(output, 'model.safetensors.index.json')))
  t.equal(config(output).dtype, 'bfloat16')
  const expected = await weightsOf(source)
  t.same(
    await weightsOf(output),
    new Map([...expected].map(([name, values]) => [name, widened(roundToBfloat16(values))])),
  )
})

t.test('--upcycle: predict gives the logits that the dense model has', async (t) => {
  const dense = modelOf('bert', 'bert')
  const input = ['hello world', 'the film is good', 'unbelievable theatre !']
    .map((text) => `${JSON.stringify({ text })}\n`)
    .join('')
  const logitsOf = async (model: string) => {
    const { code, stdout, stderr } = await cli.run(['predict', model, '--logits', '--json'], { input })
    t.match({ code, stderr }, { code: 0, stderr: '' })
    return (JSON.parse(stdout) as { predictions: { label: string; logits: Record<string, number> }[] }).predictions
  }
  const expected = await logitsOf(dense)
  t.equal(new Set(expected.map(({ logits }) => logits.LABEL_0)).size, 3, 'the texts differ')
  for (const [name, flags, mixture] of [
    ['every-second', [], { num_experts: 8, num_experts_per_tok: 1, moe_layers: [1] }],
    [
      'all',
      ['--layers', 'all', '--num-experts', '4', '--experts-per-token', '2', '--seed', '5'],
      { num_experts: 4, num_experts_per_tok: 2, moe_layers: [0, 1] },
    ],
  ] as const) {
    const output = file('upcycled', name)
    const { code, stdout } = await cli.run(['convert', dense, '--upcycle', ...flags, '--output', output, '--json'])
    t.equal(code, 0)
    t.match(JSON.parse(stdout), { modelType: 'bert_moe', newTensors: [] })
    t.match(config(output), { model_type: 'bert_moe', ...mixture })
    t.match(readdirSync(output), ['config.json', 'model.safetensors', 'tokenizer.json'])
    for (const [i, { label, logits }] of (await logitsOf(output)).entries()) {
      t.equal(label, expected[i]!.label)
      for (const [one, logit] of Object.entries(logits)) t.ok(Math.abs(logit - expected[i]!.logits[one]!) < 1e-5)
    }
    const again = await cli.run(['convert', dense, '--upcycle', ...flags, '--output', output, '--overwrite', '--json'])
    t.equal(again.code, 0, 'a model is overwritten where that is asked for')
    refused(t, await cli.fail(t, ['convert', output, '--upcycle', '--output', file('twice')]), 1, /dense/)
  }
  const routers = async (name: string) =>
    [...(await weightsOf(file('upcycled', name)))].filter(([key]) => /router/.test(key))
  await cli.run(['convert', dense, '--upcycle', '--seed', '1', '--output', file('upcycled', 'seed'), '--json'])
  t.notSame(await routers('seed'), await routers('every-second'), 'the seed decides the routers')
})

t.test('a checkpoint without a head gets one, and a warning', async (t) => {
  const headless = modelOf('bert', 'headless', { architectures: ['BertModel'] })
  const path = file('headless', 'model.safetensors')
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = bytes.toString('utf8', 8, 8 + length)
  // The head's tensors under names that a BERT reader passes over.
  const renamed = header.replaceAll('"classifier.', '"cls.').padEnd(length)
  writeFileSync(path, Buffer.concat([bytes.subarray(0, 8), Buffer.from(renamed), bytes.subarray(8 + length)]))
  const { code, stdout, stderr } = await cli.run(['convert', headless, '--output', file('with-head'), '--json'])
  t.equal(code, 0)
  t.same(JSON.parse(stdout).newTensors, ['classifier.weight', 'classifier.bias'])
  t.match(stderr, /^warning: the model has no classifier\.weight, classifier\.bias: [^\n]+\n$/)
  t.same((await weightsOf(file('with-head'))).size, (await weightsOf(headless)).size)
})

t.test('what cannot be converted: one line, exit code 1, and nothing is left', async (t) => {
  const damaged = modelOf('olmoe', 'damaged')
  writeFileSync(join(damaged, 'model.safetensors'), readFileSync(join(damaged, 'model.safetensors')).subarray(0, 5000))
  mkdirSync(file('full'))
  writeFileSync(file('full', 'notes.txt'), 'keep me')
  mkdirSync(file('full-model'))
  cpSync(file('olmoe'), file('full-model'), { recursive: true })
  writeFileSync(file('full-model', 'notes.txt'), 'keep me')
  writeFileSync(file('plain'), '')
  const bert = file('bert')
  const other = modelOf('bert', 'other', { model_type: 'gpt2', architectures: undefined })
  const tokens = modelOf('bert', 'tokens', { architectures: ['BertForTokenClassification'] })
  const wide = modelOf('olmoe', 'wide', { hidden_size: 32 })
  const before = readdirSync(folder).sort()
  const output = ['--output', file('out')]
  for (const [args, says] of [
    [[file('nowhere'), ...output], /There is no folder .*nowhere\. Check the path/],
    [[other, ...output], /other\/config\.json: model_type: expected one of bert, .*mixtral.*, got "gpt2"/],
    [
      [tokens, ...output],
      /architectures: expected one of .*BertForSequenceClassification.*got "BertForTokenClassification"/,
    ],
    [[wide, ...output], /wide: expected .*\[.*\], got \[.*\]/],
    [[damaged, ...output], /damaged\/model\.safetensors/],
    [[damaged, '--output', file('new', 'out')], /damaged\/model\.safetensors/],
    [[file('olmoe'), '--upcycle', ...output], /only dense BERT models are upcycled, got model_type 'olmoe'/],
    [[bert, '--upcycle', '--num-experts', '1', ...output], /an integer >= 2 for --num-experts, got 1/],
    [[bert, '--upcycle', '--experts-per-token', '9', ...output], /from 1 to 8 for --experts-per-token, got 9/],
    [[bert, '--max-shard-bytes', '0', ...output], />= 1 for --max-shard-bytes, got 0/],
    [[bert, '--output', file('full')], /full is not empty\. .*--overwrite/],
    [[bert, '--output', file('full'), '--overwrite'], /full holds 'notes\.txt'/],
    [[bert, '--output', file('full-model'), '--overwrite'], /full-model holds 'notes\.txt'/],
    [[bert, '--output', bert, '--overwrite'], /bert is the model that is read/],
    [[bert, '--output', file('plain')], /plain/],
  ] as const) {
    await t.test(String(says), async (t) => refused(t, await cli.fail(t, ['convert', ...args]), 1, says))
    t.same(readdirSync(folder).sort(), before)
  }
  t.equal(readFileSync(file('full-model', 'notes.txt'), 'utf8'), 'keep me')
})

t.test('a model of the hub: from the cache, else a line that says why not', async (t) => {
  const commit = '0123456789abcdef0123456789abcdef01234567'
  const store = file('cache', 'models--owner--bert')
  mkdirSync(join(store, 'refs'), { recursive: true })
  writeFileSync(join(store, 'refs/main'), commit)
  cpSync(file('bert'), join(store, 'snapshots', commit), { recursive: true })
  const env = { HF_HUB_CACHE: file('cache'), HF_HUB_OFFLINE: '1' }
  const run = (model: string, ...args: string[]) => cli.run(['convert', model, ...args], { env, cwd: folder })
  t.match(await run('owner/bert', '--output', 'from-hub', '--json'), { code: 0, stderr: '' })
  t.same(await weightsOf(file('from-hub')), await weightsOf(file('bert')))
  t.match(await run('owner/bert', '--revision', commit, '--output', 'from-commit'), { code: 0, stderr: '' })
  refused(t, await run('owner/bert', '--revision', 'v2', '--output', 'x'), 1, /owner\/bert: .*network/)
  refused(t, await run('owner/none', '--output', 'x'), 1, /owner\/none: .*network/)
  t.notOk(existsSync(file('x')))
})

t.test('SIGINT: exit code 130 and nothing is left', async (t) => {
  const output = file('stopped', 'deep', 'model')
  const { code, signal, stdout, stderr } = await cli.run(
    ['convert', file('bert'), '--upcycle', '--num-experts', '1500', '--layers', 'all', '--output', output],
    {
      started(child) {
        const timer = setInterval(() => {
          if (!existsSync(file('stopped', 'deep')) || readdirSync(file('stopped', 'deep')).length === 0) return
          clearInterval(timer)
          child.kill('SIGINT')
        }, 5)
        child.once('exit', () => clearInterval(timer))
      },
    },
  )
  t.match({ code, signal, stdout }, { code: 130, signal: null, stdout: '' })
  t.match(stderr, /^Stopping; nothing is written\. [^\n]+\ndp-moe: Interrupted \(SIGINT\)\n$/)
  t.notOk(existsSync(file('stopped')), 'nor are the folders above it that were made')
})
