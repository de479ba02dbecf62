import { CheckpointStore } from '../../lib/train/checkpoint.js'

/** Saves checkpoints until killed, and says each one after it is on disk. Every value of its tensors is its step. */
const store = new CheckpointStore(process.argv[2]!)
const { checkpoint } = await store.load()
await checkpoint?.close()
for (let nextStep = (checkpoint?.facts.nextStep ?? 0) + 1; ; nextStep++) {
  const tensor = { dtype: 'F32', shape: [50_000], data: () => new Float32Array(50_000).fill(nextStep) } as const
  await store.save(
    {
      nextStep,
      updates: nextStep,
      key: 'os',
      keyFingerprint: null,
      configurationFingerprint: 'c'.repeat(64),
      ledger: null,
      extra: {},
    },
    { parameters: new Map([['weight', tensor]]), optimizer: new Map([['weight.mean', tensor]]) },
  )
  process.stdout.write(`${nextStep}\n`)
}
