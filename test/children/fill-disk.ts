import { execFileSync } from 'node:child_process'
import { open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DpMoeError } from '../../lib/errors.js'
import { Ledger } from '../../lib/privacy/ledger.js'
import { CheckpointStore } from '../../lib/train/checkpoint.js'
import { RunFolder } from '../../lib/train/run-folder.js'

/**
 * Makes a run in the folder of the first argument, and saves checkpoints and appends steps until the disk is full or, with a
 * second argument, until files reach that many bytes; then says what is left.
 */
const [folder, fileBytes] = process.argv.slice(2) as [string, string | undefined]
const digest = 'a'.repeat(64)
const mechanism = { noiseMultiplier: 1, sampleRate: 0.5 }
const run = await RunFolder.create(join(folder, 'run'))
let ledger = await Ledger.create(run.ledgerFile, {
  key: 'os',
  ...mechanism,
  plannedSteps: 1e6,
  relation: 'zero-out',
  configurationFingerprint: digest,
  dataFingerprint: digest,
  software: '0',
})
const store = new CheckpointStore(run.checkpointsFolder)
const codes: Record<string, unknown> = {}

if (fileBytes) execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${fileBytes}`])
let saved = 0
codes.save = await codeOf(async () => {
  for (;;) {
    await save(saved + 1)
    saved++
  }
})
codes.release = await codeOf(() =>
  run.writeRelease(async (release) => {
    const handle = await open(join(release, 'model.safetensors'), 'w')
    try {
      for (;;) await handle.writeFile(Buffer.alloc(4096))
    } finally {
      await handle.close()
    }
  }),
)
if (!fileBytes) await fill()
let appended = 0
codes.append = await codeOf(async () => {
  for (;;) {
    await ledger.append(appended, mechanism)
    appended++
  }
})
await rm(join(folder, 'filler'), { force: true })
codes.appendAgain = await codeOf(() => ledger.append(appended, mechanism))
await ledger.close()
const endsWithNewline = (await readFile(run.ledgerFile, 'latin1')).endsWith('\n')
ledger = await Ledger.open(run.ledgerFile)
await ledger.close()
const { checkpoint, damaged } = await store.load()
const weight = await checkpoint!.parameters.get('weight')!.read()
await checkpoint!.close()
console.log(
  JSON.stringify({
    codes,
    appended,
    recorded: ledger.steps,
    endsWithNewline,
    saved,
    loaded: checkpoint!.facts.nextStep,
    value: weight[0],
    damaged: damaged.length,
    leftovers: (await readdir(join(folder, 'run'), { recursive: true })).filter((name) => name.endsWith('tmp')),
    names: (await readdir(join(folder, 'run'))).sort(),
  }),
)

/** Each checkpoint is larger than the last. */
async function save(nextStep: number): Promise<void> {
  const size = nextStep * 1000
  const tensor = { dtype: 'F32', shape: [size], data: new Float32Array(size).fill(nextStep) } as const
  const facts = {
    nextStep,
    updates: nextStep,
    key: 'os',
    keyFingerprint: null,
    ledger: ledger.position,
    extra: {},
  } as const
  await store.save(
    { ...facts, configurationFingerprint: digest },
    { parameters: new Map([['weight', tensor]]), optimizer: new Map() },
  )
}

/** Leaves no free block on the disk. */
async function fill(): Promise<void> {
  const handle = await open(join(folder, 'filler'), 'w')
  await codeOf(async () => {
    for (;;) await handle.write(Buffer.alloc(1024))
  })
  await handle.close()
}

async function codeOf(work: () => Promise<unknown>): Promise<unknown> {
  try {
    await work()
    return undefined
  } catch (error) {
    if (error instanceof DpMoeError) return error.code
    return error instanceof Error && 'code' in error ? error.code : String(error)
  }
}
