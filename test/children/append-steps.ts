import { Ledger } from '../../lib/privacy/ledger.js'

/** Appends steps until killed, and says each one after it is on disk: the moment at which a run makes its update. */
const ledger = await Ledger.open(process.argv[2]!)
for (let step = ledger.steps; ; step++) {
  await ledger.append(step, { noiseMultiplier: 1.5, sampleRate: 0.01 })
  process.stdout.write(`${step}\n`)
}
