import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { dpSgd, PldAccountant, solve } from '../lib/accounting/index.js'

/**
 * The accountant beside dp_accounting, in one run: epsilon at many steps, solving for the noise, and 200 random targets whose
 * solved noise dp_accounting is asked about.
 *
 *     python3 -m venv PLACE && PLACE/bin/pip install dp-accounting==0.6.0
 *     node --import tsx benchmarks/accounting.ts PLACE/bin/python [TARGETS [SEED]]
 *
 * Prints one line of JSON per measurement: milliseconds are the least of several, of wall time and of processor time (fair
 * on a busy machine), and every value is the certified upper bound. With a SEED, only the random targets.
 */
const [python = 'python3', targets = '200', seed] = process.argv.slice(2)
const REPEATS = 7

interface Answer {
  readonly milliseconds: number
  readonly processorMilliseconds: number
  readonly value: number
}

/** The first call compiles and fills caches; it is not counted. */
function measure(work: () => number): Answer {
  let value = work()
  const wall: number[] = []
  const processor: number[] = []
  for (let i = 0; i < REPEATS; i++) {
    const [start, used] = [performance.now(), process.cpuUsage()]
    value = work()
    const { user, system } = process.cpuUsage(used)
    wall.push(performance.now() - start)
    processor.push((user + system) / 1000)
  }
  return { milliseconds: Math.min(...wall), processorMilliseconds: Math.min(...processor), value }
}

/** Asks the script that calls dp_accounting: a list of questions in, a list of answers out. */
function peer<Reply>(questions: readonly object[]): Reply[] {
  const script = fileURLToPath(new URL('peers/dp_accounting_speed.py', import.meta.url))
  const { status, stdout, stderr } = spawnSync(python, [script], { input: JSON.stringify(questions), encoding: 'utf8' })
  if (status !== 0) throw new Error(`${python} ${script} failed: ${stderr}`)
  return JSON.parse(stdout)
}

const epsilonCase = { sampleRate: 0.001, noiseMultiplier: 0.8, steps: 100_000, delta: 1e-6 }
const noiseCase = { sampleRate: 0.01, steps: 1000, delta: 1e-5, epsilon: 1 }
const manySteps = { sampleRate: 0.001, steps: 100_000, delta: 1e-6, epsilon: 3 }

const epsilonOf = ({ sampleRate, noiseMultiplier, steps, delta }: typeof epsilonCase) =>
  new PldAccountant().compose(dpSgd(noiseMultiplier, sampleRate, steps)).epsilon(delta).epsilon

function speed(): void {
  const ours = [
    measure(() => epsilonOf(epsilonCase)),
    measure(() => solve(noiseCase).noiseMultiplier),
    measure(() => solve(manySteps).noiseMultiplier),
  ]
  const theirs = peer<Answer>([
    { ask: 'epsilon', repeats: REPEATS, ...epsilonCase },
    { ask: 'noise', repeats: 1, ...noiseCase },
    { ask: 'noise', repeats: 1, ...manySteps },
  ])
  const titles = [
    'epsilon, q 0.001, sigma 0.8, 100000 steps',
    'sigma, q 0.01, 1000 steps',
    'sigma, q 0.001, 100000 steps',
  ]
  for (const [i, what] of titles.entries())
    console.log(JSON.stringify({ what, ours: ours[i], dpAccounting: theirs[i] }))
}

/** Targets as users set them. */
function randomTargets(count: number, from: number) {
  let state = from
  const uniform = () => {
    state = (state * 48_271) % 2_147_483_647
    return state / 2_147_483_647
  }
  const between = (low: number, high: number) => low * (high / low) ** uniform()
  return Array.from({ length: count }, () => ({
    epsilon: between(0.2, 12),
    delta: between(1e-8, 1e-4),
    sampleRate: between(5e-4, 0.2),
    steps: Math.round(between(20, 20_000)),
  }))
}

if (seed === undefined) speed()
/** Targets that are solved and checked together. */
const CHUNK = 20
const gaps: { fine: number; standard: number }[] = []
const all = randomTargets(Number(targets), Number(seed ?? 20_240_607))
for (let from = 0; from < all.length; from += CHUNK) {
  const asked = all.slice(from, from + CHUNK).map((target) => {
    return { ...target, noiseMultiplier: solve(target).noiseMultiplier }
  })
  const checked = peer<{ fine: number; standard: number }>(asked.map((question) => ({ ask: 'check', ...question })))
  for (const [i, { fine, standard }] of checked.entries()) {
    gaps.push({ fine: asked[i]!.epsilon - fine, standard: asked[i]!.epsilon - standard })
  }
  const within = (gap: number) => gap >= 0 && gap <= 0.01
  for (const [i, { standard }] of checked.entries()) {
    const { epsilon } = asked[i]!
    if (!within(epsilon - standard)) console.log(JSON.stringify({ what: 'outside', ...asked[i], ...checked[i] }))
  }
  console.log(
    JSON.stringify({
      what: 'sigma for random targets, given to dp_accounting: target - epsilon',
      targets: gaps.length,
      least: Math.min(...gaps.map(({ fine }) => fine)),
      most: Math.max(...gaps.map(({ fine }) => fine)),
      within: gaps.filter(({ fine }) => within(fine)).length,
      // At its default lattice dp_accounting's own rounding up can exceed the target.
      withinAtDefaultLattice: gaps.filter(({ standard }) => within(standard)).length,
      leastAtDefaultLattice: Math.min(...gaps.map(({ standard }) => standard)),
    }),
  )
}
console.log(
  JSON.stringify({
    cpu: /model name\s*: (.*)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1],
    node: process.version,
  }),
)
