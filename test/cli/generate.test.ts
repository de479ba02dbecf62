import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { Decoder } from '../../lib/models/decoder.js'
import { TextGenerator } from '../../lib/models/generation/text-generator.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-generate-'))
const file = (...names: string[]) => join(folder, ...names)
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => {
  device.close()
  cli.remove()
  rmSync(folder, { recursive: true })
})

const json = (path: string) => JSON.parse(readFileSync(path, 'utf8'))
const tokenizerOf = (name: string): object =>
  json(fileURLToPath(new URL(`../data/fixtures/${name}.json`, import.meta.url))).tokenizer

/** A tiny random checkpoint with a tokenizer and changed settings. */
function modelOf(name: string, copy: string, change: object = {}): string {
  const fixture = fileURLToPath(new URL(`../parity/fixtures/${name}`, import.meta.url))
  mkdirSync(file(copy))
  cpSync(join(fixture, 'model.safetensors'), file(copy, 'model.safetensors'))
  const config = { ...json(join(fixture, 'config.json')), max_position_embeddings: 100_000, ...change }
  writeFileSync(file(copy, 'config.json'), JSON.stringify(config))
  writeFileSync(file(copy, 'tokenizer.json'), JSON.stringify(tokenizerOf('unigram')))
  return file(copy)
}

const decoder = modelOf('mixtral', 'decoder')
const switched = modelOf('switch', 'switch')
/** Writes to the end of time: no token ends it. */
const endless = modelOf('mixtral', 'endless', { eos_token_id: null })
const prompts = ['the film', 'hello', 'is it good ?', 'a b c', 'world']
const lines = (texts: readonly string[], key = 'prompt') =>
  texts.map((text) => `${JSON.stringify({ [key]: text })}\n`).join('')
const drawn = ['--max-new-tokens', '10', '--temperature', '2', '--top-k', '20', '--top-p', '0.95', '--seed', '4']

async function expectedOf(model: string, options: object): Promise<string[]> {
  using generator = await TextGenerator.open(device, model)
  return await generator.generate(prompts, options)
}

for (const [name, model] of Object.entries({ decoder, switched })) {
  t.test(`${name}: --prompt, and JSON lines in order`, async (t) => {
    for (const [flags, options] of [
      [['--max-new-tokens', '10'], { maxNewTokens: 10 }],
      [drawn, { maxNewTokens: 10, temperature: 2, topK: 20, topP: 0.95, seed: 4 }],
    ] as const) {
      const expected = await expectedOf(model, options)
      const one = await cli.run(['generate', model, '--prompt', prompts[0]!, ...flags])
      t.same(one, { code: 0, signal: null, stdout: `${expected[0]}\n`, stderr: '' })
      const object = await cli.run(['generate', model, '--prompt', prompts[0]!, '--json', ...flags])
      t.equal(object.stdout, `${JSON.stringify({ prompt: prompts[0], text: expected[0] })}\n`)

      const generations = prompts.map((prompt, i) => ({ prompt, text: expected[i] }))
      const all = await cli.run(['generate', model, ...flags], { input: lines(prompts) })
      t.match(all, { code: 0, stderr: '' })
      t.same(
        all.stdout
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line)),
        generations,
      )
      const whole = await cli.run(['generate', model, '--json', ...flags], { input: lines(prompts) })
      t.equal(whole.stdout, `${JSON.stringify({ generations })}\n`)
    }
  })
}

t.test('a line is answered before the next one comes, with the text that it has among others', async (t) => {
  const expected = await expectedOf(decoder, { maxNewTokens: 10, temperature: 2, topK: 20, topP: 0.95, seed: 4 })
  const conversation = cli.run(['generate', decoder, '--prompt-column', 'q', '--threads', '1', ...drawn], {
    async started(child) {
      for (const [i, prompt] of prompts.entries()) {
        child.stdin!.write(lines([prompt], 'q'))
        const [answer] = (await once(child.stdout!, 'data')) as [Buffer]
        t.same(JSON.parse(String(answer)), { prompt, text: expected[i] })
      }
      child.stdin!.end()
    },
  })
  t.match(await conversation, { code: 0, stderr: '' })
})

t.test('--stop, and the token that ends a text', async (t) => {
  const flags = ['--prompt', 'hello', '--max-new-tokens', '10', '--temperature', '2', '--seed', '4']
  const text = (await cli.run(['generate', endless, ...flags])).stdout.trimEnd()
  t.ok(text.length > 6)
  const stop = text.slice(4, 6)
  const stopped = await cli.run(['generate', endless, ...flags, '--stop', stop])
  t.equal(stopped.stdout, `${text.split(stop)[0]}\n`)
  using generator = await TextGenerator.open(device, endless)
  const ends = Array.from({ length: 40 }, (_, token) => token)
  cpSync(endless, file('ends'), { recursive: true })
  writeFileSync(file('ends', 'generation_config.json'), JSON.stringify({ eos_token_id: ends }))
  t.same((await cli.run(['generate', file('ends'), ...flags])).stdout, '\n', 'every token ends it')
  t.same(generator.stopTokens, [])
})

t.test('characters of several tokens are written whole, as they come', async (t) => {
  const kind = 'olmoe'
  const { numLayers, ...shape } = { numLayers: 1, hiddenSize: 16, numAttentionHeads: 2, numKeyValueHeads: 2 }
  const rest = {
    attentionBias: false,
    clipQkv: undefined,
    activation: 'silu',
    normEpsilon: 1e-5,
    ropeTheta: 1e4,
  } as const
  const experts = { numExperts: 2, expertsPerToken: 1, expertSize: 8, normalizeGates: false, routerJitter: 0 }
  const dense = { denseSize: 8, denseLayers: [], tiedHead: true, balanceLoss: 0, ropeFactor: 1, headSize: 8 }
  const config = { kind, vocabularySize: 274, numLayers, ...shape, ...rest, ...experts, ...dense } as const
  using model = new Decoder(new Initializer(device, 3), config)
  await model.savePretrained(file('bytes'))
  writeFileSync(file('bytes', 'tokenizer.json'), JSON.stringify(tokenizerOf('byte-level-bpe')))
  const flags = ['--prompt', '\u4f60\u597d', '--max-new-tokens', '300', '--temperature', '1', '--seed', '2']
  const whole = JSON.parse((await cli.run(['generate', file('bytes'), '--json', ...flags])).stdout)
  const pieces: Buffer[] = []
  const { code, stdout } = await cli.run(['generate', file('bytes'), ...flags], {
    started: (child) => child.stdout!.on('data', (piece: Buffer) => pieces.push(piece)),
  })
  t.equal(code, 0)
  t.equal(stdout, `${whole.text}\n`)
  t.ok(pieces.length > 10, 'it comes in pieces')
  const decoder = new TextDecoder('utf-8', { fatal: true })
  t.doesNotThrow(() => {
    for (const piece of pieces) decoder.decode(piece)
  })
  t.match(whole.text, /[\u0080-\ufffc]/, 'some characters of several bytes are complete')
})

t.test('a model goes through convert and says the same', async (t) => {
  const args = ['--max-new-tokens', '12', '--prompt', 'the film', '--json']
  for (const [name, model] of Object.entries({ decoder, switched })) {
    const output = file('converted', name)
    const flags = ['--max-shard-bytes', '20000', '--output', output]
    t.equal((await cli.run(['convert', model, ...flags])).code, 0)
    const before = await cli.run(['generate', model, ...args])
    t.match(before, { code: 0, stderr: '' })
    t.same(await cli.run(['generate', output, ...args]), before)
  }
})

t.test('a prompt that is wrong: its line, after the answers to those before it', async (t) => {
  const input = `${lines(prompts.slice(0, 2))}${lines([''])}${lines(['late'])}`
  const { code, stdout, stderr } = await cli.run(['generate', decoder, '--max-new-tokens', '3'], { input })
  t.equal(code, 1)
  t.equal(stdout.trimEnd().split('\n').length, 2)
  t.match(stderr, /^dp-moe: standard input:3: Expected a prompt that is not empty\n$/)
  const short = modelOf('mixtral', 'short', { max_position_embeddings: 12 })
  for (const [args, input, says] of [
    [[decoder, '--json'], `${lines(['a'])}{"prompt": \n`, /standard input:2: the line is not JSON/],
    [[decoder], '', /standard input: the file is empty/],
    [[decoder], lines(['a'], 'text'), /standard input:1: there is no column 'prompt'/],
    [
      [short, '--max-new-tokens', '8'],
      lines(['the film is good the film is good']),
      /standard input:1: .*room for 8 new tokens in the 12 positions/,
    ],
  ] as const) {
    await t.test(String(says), async (t) => refused(t, await cli.run(['generate', ...args], { input }), 1, says))
  }
})

t.test('models and options that are wrong: one line', async (t) => {
  const prompt = ['--prompt', 'hello']
  const bert = modelOf('bert', 'bert')
  const bare = modelOf('mixtral', 'bare')
  rmSync(join(bare, 'tokenizer.json'))
  const unknown = modelOf('mixtral', 'unknown', { model_type: 'gpt2' })
  for (const [args, says] of [
    [[bert, ...prompt], /expected a language model .* got an encoder of type 'bert'/],
    [[bare, ...prompt], /bare\/tokenizer\.json: it does not exist/],
    [[unknown, ...prompt], /model_type: expected one of .*mixtral.*, got "gpt2"/],
    [[file('nowhere'), ...prompt], /There is no folder .*nowhere\. Check the path/],
    [[decoder, ...prompt, '--max-new-tokens', '100000'], /room for 100000 new tokens/],
    [[decoder, ...prompt, '--max-new-tokens', '0'], /an integer >= 1 for --max-new-tokens, got 0/],
    [[decoder, ...prompt, '--temperature', '-1'], /for --temperature, got -1/],
    [[decoder, ...prompt, '--temperature', '1', '--top-k', '0'], /for --top-k, got 0/],
    [[decoder, ...prompt, '--temperature', '1', '--top-p', '1.5'], /for --top-p, got 1.5/],
    [[decoder, ...prompt, '--device', 'tpu'], /tpu/],
  ] as const) {
    await t.test(String(says), async (t) => refused(t, await cli.fail(t, ['generate', ...args]), 1, says))
  }
})

t.test('a reader that stops early ends generate quietly', async (t) => {
  const finished = await cli.run(['generate', endless, '--prompt', 'hello', '--max-new-tokens', '90000'], {
    started: (child) => child.stdout!.once('data', () => child.stdout!.destroy()),
  })
  t.match(finished, { code: 0, stderr: '' })
})

t.test('SIGINT: the text so far, exit code 130', async (t) => {
  const interrupt = (child: ChildProcess) => {
    child.stdout!.once('data', () => child.kill('SIGINT'))
  }
  const long = ['--max-new-tokens', '90000']
  const { code, signal, stdout, stderr } = await cli.run(['generate', endless, '--prompt', 'hello', ...long], {
    started: interrupt,
  })
  t.match({ code, signal }, { code: 130, signal: null })
  t.match(stdout, /^[^\n]+\n$/)
  t.match(stderr, /^Stopping; interrupt again to stop at once\.\ndp-moe: Stopped after \d+ tokens\n$/)

  const waiting = await cli.run(['generate', decoder, '--max-new-tokens', '3'], {
    started(child) {
      interrupt(child)
      child.stdin!.write(lines(['hello']))
    },
  })
  t.match(waiting, { code: 130, signal: null })
  t.match(JSON.parse(waiting.stdout), { prompt: 'hello', text: String })
  t.match(waiting.stderr, /^Stopping; [^\n]+\ndp-moe: Interrupted \(SIGINT\)\n$/)
})
