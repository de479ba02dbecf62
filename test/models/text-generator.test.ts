import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as fc from 'fast-check'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { generate } from '../../lib/models/generation/index.js'
import { StopText } from '../../lib/models/generation/stop-text.js'
import { TextGenerator } from '../../lib/models/generation/text-generator.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device.close())
const root = t.testdir()
const { tokenizer } = JSON.parse(readFileSync(new URL('../data/fixtures/unigram.json', import.meta.url), 'utf8')) as {
  tokenizer: object
}

function modelOf(name: string, copy = name, files: Record<string, object> = {}): string {
  const folder = join(root, copy)
  mkdirSync(folder)
  const fixture = fileURLToPath(new URL(`../parity/fixtures/${name}`, import.meta.url))
  for (const one of ['config.json', 'model.safetensors']) cpSync(join(fixture, one), join(folder, one))
  for (const [one, content] of Object.entries({ 'tokenizer.json': tokenizer, ...files })) {
    writeFileSync(join(folder, one), JSON.stringify(content))
  }
  return folder
}

const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object
const prompts = ['the film', 'hello', 'is it good ?']

for (const name of ['mixtral', 'switch']) {
  t.test(`${name}: texts are those of the tokens`, async (t) => {
    using generator = await TextGenerator.open(device, modelOf(name))
    const options = { maxNewTokens: 12, temperature: 2, seed: 4, stopTokens: [] }
    const ids = prompts.map((prompt) => generator.encode(prompt, 12))
    const tokens = await generate(generator.model, ids, options)
    const expected = tokens.map((made, i) => {
      const before = name === 'switch' ? [] : [...ids[i]!]
      return generator.tokenizer.decode([...before, ...made]).slice(generator.tokenizer.decode(before).length)
    })
    t.same(await generator.generate(prompts, options), expected)
    const spaced = expected.some((text) => text.startsWith(' '))
    t.equal(spaced, name === 'mixtral', 'a continuation may begin with a space, an answer never does')
    t.ok(new Set(expected).size === 3 && expected.every((text) => text.length > 3))

    const pieces: string[][] = prompts.map(() => [])
    const ended: number[] = []
    for await (const { prompt, text, last } of generator.stream(prompts, options)) {
      pieces[prompt]!.push(text)
      if (last) ended.push(prompt)
    }
    t.same(
      pieces.map((all) => all.join('')),
      expected,
    )
    t.ok(pieces.every((all) => all.length > 3))
    t.same(ended.sort(), [0, 1, 2])
    const third = await generator.generate([prompts[2]!], { ...options, firstPrompt: 2 })
    t.same(third, [expected[2]], "a prompt's place is what its choices follow from")

    const stop = expected[0]!.slice(2, 4)
    const stopped = await generator.generate(prompts, { ...options, stop })
    t.same(
      stopped,
      expected.map((text) => text.split(stop)[0]),
    )
    t.notSame(stopped, expected)
  })
}

t.test('tokens that end a text: of generation_config.json, else of config.json', async (t) => {
  using plain = await TextGenerator.open(device, join(root, 'mixtral'))
  t.same(plain.stopTokens, [2])
  const ids = plain.encode('hello', 8)
  const [tokens] = await generate(plain.model, [ids], { maxNewTokens: 8, temperature: 3, seed: 1 })
  const end = tokens![4]!
  const place = tokens!.indexOf(end)
  using several = await TextGenerator.open(
    device,
    modelOf('mixtral', 'several', { 'generation_config.json': { eos_token_id: [end, 39] } }),
  )
  t.same(several.stopTokens, [end, 39])
  const whole = plain.tokenizer.decode([...ids, ...tokens!.slice(0, place)])
  const [text] = await several.generate(['hello'], { maxNewTokens: 8, temperature: 3, seed: 1 })
  t.equal(`${plain.tokenizer.decode(ids)}${text}`, whole)
  const bare = { ...configOf(join(root, 'mixtral')), eos_token_id: null }
  using none = await TextGenerator.open(device, modelOf('mixtral', 'none', { 'config.json': bare }))
  t.same(none.stopTokens, [])
})

t.test('what is refused', async (t) => {
  const small = { ...configOf(join(root, 'mixtral')), eos_token_id: 'end' }
  await t.rejects(TextGenerator.open(device, modelOf('mixtral', 'bad', { 'config.json': small })), {
    code: 'MODEL_FORMAT',
    message: /bad\/config\.json: eos_token_id: expected a token id or a list of them/,
  })
  await t.rejects(TextGenerator.open(device, modelOf('bert')), {
    code: 'MODEL_FORMAT',
    message: /expected a language model .*MixtralForCausalLM.*got an encoder of type 'bert'/,
  })
  const classifier = join(root, 'classifier')
  mkdirSync(classifier)
  writeFileSync(join(classifier, 'config.json'), '{"format":"dp-moe-model-1"}')
  await t.rejects(TextGenerator.open(device, classifier), {
    code: 'MODEL_FORMAT',
    message: /expected a language model .* got a classifier.*dp-moe predict/,
  })
  const large = { ...tokenizer, added_tokens: [{ id: 40, content: '<new>', special: true }] }
  await t.rejects(TextGenerator.open(device, modelOf('mixtral', 'large', { 'tokenizer.json': large })), {
    code: 'MODEL_FORMAT',
    message: /the tokenizer has 41 tokens and the model 40/,
  })
  using generator = await TextGenerator.open(device, join(root, 'mixtral'))
  await t.rejects(generator.generate(['hello', ''], { maxNewTokens: 5 }), {
    code: 'INVALID_ARGUMENT',
    message: /not empty/,
  })
  await t.rejects(generator.generate(['hello']), /room for 64 new tokens in the 64 positions .*, got one of 2 tokens/)
  t.doesNotThrow(() => generator.encode('hello', 62))
  await t.rejects(generator.generate(['hello'], { stop: '' }), { code: 'INVALID_ARGUMENT' })
  await t.rejects(generator.generate(['hello'], { maxNewTokens: 0 }), { code: 'INVALID_ARGUMENT' })
  await t.rejects(generator.generate(['hello'], { maxNewTokens: 5, signal: AbortSignal.abort() }), { code: 'ABORTED' })
})

t.test('the text before a stop text, however it is cut into pieces', async (t) => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 4 })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.array(letters), letters, (pieces, ending) => {
        const stop = ending === '' ? undefined : ending
        const until = new StopText(stop)
        const out = pieces.map((piece) => until.push(piece))
        const text = pieces.join('')
        const found = stop !== undefined && text.includes(stop)
        assert.equal(until.found, found)
        assert.equal(out.join('') + until.end(), found ? text.split(stop)[0] : text)
      }),
      { numRuns: 2000 },
    ),
  )
  const until = new StopText('ab')
  t.same([until.push('xa'), until.push('a'), until.push('c')], ['x', 'a', 'ac'], 'nothing waits without need')
})
