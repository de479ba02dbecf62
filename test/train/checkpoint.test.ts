import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { type CheckpointFacts, CheckpointStore } from '../../lib/train/checkpoint.js'

const facts = (nextStep: number): CheckpointFacts => ({
  nextStep,
  updates: nextStep - 1,
  key: 'file',
  keyFingerprint: 'f'.repeat(64),
  configurationFingerprint: 'c'.repeat(64),
  ledger: { lines: nextStep + 1, hash: 'b'.repeat(64) },
  extra: { 10: 'ten', 2: ['two', null], schedule: { name: 'cosine' }, learningRate: 0.1 },
})

const tensors = (value: number) => ({
  parameters: new Map([
    ['layers.0.weight', { dtype: 'F32', shape: [2, 2], data: new Float32Array(4).fill(value) } as const],
  ]),
  optimizer: new Map([
    ['layers.0.weight.mean', { dtype: 'F32', shape: [2, 2], data: () => new Float32Array(4).fill(-value) } as const],
    ['layers.0.weight', { dtype: 'F32', shape: [1], data: Float32Array.of(value / 2) } as const],
  ]),
})

async function saved(folder: string, ...steps: number[]): Promise<CheckpointStore> {
  mkdirSync(folder, { recursive: true })
  const store = new CheckpointStore(folder)
  for (const step of steps) await store.save(facts(step), tensors(step))
  return store
}

const folderOf = (folder: string, step: number) => join(folder, `step-${String(step).padStart(10, '0')}`)

t.test('what is saved is loaded', async (t) => {
  const store = await saved(t.testdir(), 3)
  const { checkpoint, damaged } = await store.load()
  t.same(damaged, [])
  t.same(checkpoint!.facts, facts(3))
  t.same([...checkpoint!.parameters.keys()], ['layers.0.weight'])
  t.same([...checkpoint!.optimizer.keys()].sort(), ['layers.0.weight', 'layers.0.weight.mean'])
  t.same(checkpoint!.parameters.get('layers.0.weight')!.shape, [2, 2])
  t.same(await checkpoint!.parameters.get('layers.0.weight')!.read(), Float32Array.of(3, 3, 3, 3))
  t.same(await checkpoint!.optimizer.get('layers.0.weight.mean')!.read(), Float32Array.of(-3, -3, -3, -3))
  t.same(await checkpoint!.optimizer.get('layers.0.weight')!.read(), Float32Array.of(1.5))
  await checkpoint!.close()
})

t.test('the newest two are kept, by number and not by name', async (t) => {
  const folder = t.testdir()
  await saved(folder, 1, 9, 10, 100)
  t.same(readdirSync(folder).sort(), ['step-0000000010', 'step-0000000100'])
  await saved(folder, 100)
  t.same(readdirSync(folder).sort(), ['step-0000000010', 'step-0000000100'], 'one saved again replaces itself')
})

t.test('no checkpoint yet', async (t) => {
  t.same(await new CheckpointStore(t.testdir()).load(), { checkpoint: undefined, damaged: [] })
})

t.test('a damaged newest one is passed over, and said', async (t) => {
  const damages: [string, (checkpoint: string) => void, RegExp][] = [
    ['tensors cut', (at) => truncateSync(join(at, 'tensors.safetensors'), 100), /has 100 bytes, and \d+ were written/],
    ['tensors changed', (at) => flip(join(at, 'tensors.safetensors'), -1), /tensors.safetensors was changed/],
    ['tensors missing', (at) => rmSync(join(at, 'tensors.safetensors')), /tensors.safetensors: it does not exist/],
    ['facts cut', (at) => truncateSync(join(at, 'checkpoint.json'), 50), /is not JSON/],
    ['facts empty', (at) => truncateSync(join(at, 'checkpoint.json'), 0), /is not JSON/],
    ['facts missing', (at) => rmSync(join(at, 'checkpoint.json')), /checkpoint.json: it does not exist/],
    ['facts foreign', (at) => writeFileSync(join(at, 'checkpoint.json'), '{"a":1}'), /checkpoint.json was changed/],
  ]
  for (const [name, damage, reason] of damages) {
    const folder = t.testdir()
    await saved(folder, 1, 2)
    damage(folderOf(folder, 2))
    const store = new CheckpointStore(folder)
    const { checkpoint, damaged } = await store.load()
    t.equal(checkpoint!.facts.nextStep, 1, name)
    t.match(damaged, [{ path: folderOf(folder, 2), reason }])
    await checkpoint!.close()
    await store.save(facts(3), tensors(3))
    t.same(readdirSync(folder).sort(), ['step-0000000001', 'step-0000000003'], 'the two that load are kept')
  }
})

t.test('any changed byte is found', async (t) => {
  const folder = t.testdir()
  await saved(folder, 1, 2)
  const files = ['checkpoint.json', 'tensors.safetensors'].map((name) => join(folderOf(folder, 2), name))
  const originals = files.map((file) => readFileSync(file))
  await fc.assert(
    fc.asyncProperty(fc.nat(1), fc.nat(5000), async (which, position) => {
      flip(files[which]!, position % originals[which]!.length)
      const { checkpoint, damaged } = await new CheckpointStore(folder).load()
      await checkpoint!.close()
      writeFileSync(files[which]!, originals[which]!)
      return t.match({ step: checkpoint!.facts.nextStep, damaged: damaged.length }, { step: 1, damaged: 1 })
    }),
    { numRuns: 200 },
  )
})

t.test('when none loads, that is said, with every reason', async (t) => {
  const folder = t.testdir()
  await saved(folder, 1, 2)
  rmSync(join(folderOf(folder, 1), 'checkpoint.json'))
  flip(join(folderOf(folder, 2), 'tensors.safetensors'), -1)
  await t.rejects(new CheckpointStore(folder).load(), {
    code: 'CHECKPOINT_DAMAGED',
    message: /None of the 2 checkpoints .*was changed.*does not exist.*start a new run/,
  })
})

t.test('a save that fails leaves what was there', async (t) => {
  const folder = t.testdir()
  const store = await saved(folder, 1, 2)
  const failing = {
    parameters: new Map([['w', { dtype: 'F32', shape: [1], data: () => Promise.reject(new Error('gone')) } as const]]),
  }
  await t.rejects(store.save(facts(3), { ...failing, optimizer: new Map() }), { message: 'gone' })
  t.same(readdirSync(folder).sort(), ['step-0000000001', 'step-0000000002'])
})

/** Changes one byte; a negative position counts from the end. */
function flip(file: string, position: number): void {
  const bytes = readFileSync(file)
  bytes[position < 0 ? bytes.length + position : position]! ^= 0x01
  writeFileSync(file, bytes)
}
