import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  composed,
  dpSgd,
  fixedSizeSampled,
  gaussian,
  PldAccountant,
  RdpAccountant,
  selfComposed,
  solve,
  truncatedPoissonSampled,
} from '../../lib/accounting/index.js'
import { createCertificate, writeCertificate } from '../../lib/privacy/certificate.js'
import { Ledger } from '../../lib/privacy/ledger.js'
import { CheckpointStore } from '../../lib/train/checkpoint.js'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-account-'))
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const given = {
  'sample-rate': '0.01',
  'noise-multiplier': '1.1',
  steps: '500',
  delta: '1e-5',
  epsilon: '1',
} as const

/** The five flags without one. */
const without = (name: string) =>
  Object.entries(given).flatMap(([flag, value]) => (flag === name ? [] : [`--${flag}`, value]))

const FIELDS = [
  'epsilon',
  'lowerBound',
  'upperBound',
  'delta',
  'noiseMultiplier',
  'sampleRate',
  'steps',
  'accountant',
  'relation',
  'sampling',
]

t.test('each of the five is solved for, as the library does', async (t) => {
  const parameters = { sampleRate: 0.01, noiseMultiplier: 1.1, steps: 500, delta: 1e-5, epsilon: 1 }
  for (const [flag, name] of [
    ['sample-rate', 'sampleRate'],
    ['noise-multiplier', 'noiseMultiplier'],
    ['steps', 'steps'],
    ['delta', 'delta'],
    ['epsilon', 'epsilon'],
  ] as const) {
    const { code, stdout, stderr } = await cli.run(['account', ...without(flag), '--json'])
    t.match({ code, stderr }, { code: 0, stderr: '' })
    const result = JSON.parse(stdout)
    t.same(Object.keys(result), FIELDS)
    t.same(result, { ...solve({ ...parameters, [name]: undefined }), sampling: 'poisson' })
  }
})

t.test('accountant, relation and sampling are passed on', async (t) => {
  const flags = ['--accountant', 'rdp', '--relation', 'replace-one', '--json']
  const result = JSON.parse((await cli.run(['account', ...without('epsilon'), ...flags])).stdout)
  t.match(result, { accountant: 'rdp', relation: 'replace-one', lowerBound: 0 })
  const none = ['--sampling', 'none', '--noise-multiplier', '10', '--steps', '1', '--delta', '1e-5', '--json']
  t.match(JSON.parse((await cli.run(['account', ...none])).stdout), { sampling: 'none', sampleRate: 1, steps: 1 })
})

t.test('truncated and fixed-size batches', async (t) => {
  const size = ['--dataset-size', '1000']
  const truncated = ['--sampling', 'truncated-poisson', ...size, '--max-batch-size', '16', '--json']
  const kept = JSON.parse((await cli.run(['account', ...without('epsilon'), ...truncated])).stdout)
  t.same(Object.keys(kept), FIELDS)
  const event = selfComposed(500, truncatedPoissonSampled(0.01, 1000, 16, gaussian(1.1)))
  t.equal(kept.epsilon, new PldAccountant().compose(event).epsilon(1e-5).epsilon)
  t.match(kept, { sampling: 'truncated-poisson', sampleRate: 0.01 })

  const fixed = ['--sampling', 'fixed-size', ...size, '--accountant', 'rdp', '--relation', 'replace-one', '--json']
  const batch = selfComposed(500, fixedSizeSampled(1000, 10, gaussian(1.1)))
  const { epsilon } = new RdpAccountant({ relation: 'replace-one' }).compose(batch).epsilon(1e-5)
  for (const rate of [
    ['--sample-rate', '0.01'],
    ['--max-batch-size', '10'],
  ]) {
    const words = ['--noise-multiplier', '1.1', '--steps', '500', '--delta', '1e-5', ...rate, ...fixed]
    t.match(JSON.parse((await cli.run(['account', ...words])).stdout), { epsilon, sampleRate: 0.01 })
  }
  const words = ['--noise-multiplier', '1.1', '--steps', '500', '--delta', '1e-5', '--epsilon', String(epsilon + 1e-6)]
  t.match(JSON.parse((await cli.run(['account', ...words, ...fixed])).stdout), { sampleRate: 0.01, epsilon })
})

t.test('--plot draws two curves that are where the accountant says', async (t) => {
  const path = join(folder, 'epsilon.svg')
  const words = ['--accountant', 'rdp', '--plot', path, '--json']
  const { code, stderr } = await cli.run(['account', ...without('epsilon'), ...words])
  t.match({ code, stderr }, { code: 0, stderr: '' })
  const svg = readFileSync(path, 'utf8')
  t.match(svg, /^<svg [^>]*viewBox="0 0 960 420"[\s\S]*<\/svg>\n$/)
  t.notMatch(svg, /NaN|Infinity|undefined/)
  const lines = [...svg.matchAll(/<polyline points="([^"]*)"/g)].map((match) =>
    match[1]!.split(' ').map((point) => point.split(',').map(Number)),
  )
  t.equal(lines.length, 3)
  for (const line of lines) {
    for (const [i, [x, y]] of line.entries()) {
      t.ok(x! >= 80 && x! <= 900 && y! >= 50 && y! <= 350, 'inside its panel')
      if (i > 0) t.ok(x! >= line[i - 1]![0]! && y! <= line[i - 1]![1]!, 'rises to the right')
    }
  }
  t.same(lines[0]![0], [80, 350])
  t.same(lines[0]!.at(-1), [440, 50])
  refused(
    t,
    await cli.fail(t, [
      'account',
      ...without('epsilon'),
      '--accountant',
      'rdp',
      '--plot',
      join(folder, 'no', 'x', 'a.svg'),
    ]),
    1,
    /Cannot write .*a\.svg/,
  )
})

t.test('for people: bounds are rounded to the safe side', async (t) => {
  const { stdout } = await cli.run(['account', ...without('epsilon')])
  const { epsilon, lowerBound } = solve({ sampleRate: 0.01, noiseMultiplier: 1.1, steps: 500, delta: 1e-5 })
  const [, shown, least] = /^epsilon +(\S+) +solved for; certified upper bound; at least (\S+)$/m.exec(stdout)!
  t.ok(Number(shown) >= epsilon && Number(shown) < epsilon * (1 + 1e-5))
  t.ok(Number(least) <= lowerBound && Number(least) > lowerBound * (1 - 1e-5))
  t.match(stdout, /^delta +1e-5$/m)
  const solved = (await cli.run(['account', ...without('noise-multiplier')])).stdout
  const { noiseMultiplier } = solve({ sampleRate: 0.01, epsilon: 1, steps: 500, delta: 1e-5 })
  t.ok(Number(/^noise multiplier +(\S+) +solved for$/m.exec(solved)![1]) >= noiseMultiplier)
})

t.test('a configuration file says the same as flags', async (t) => {
  const path = join(folder, 'account.yaml')
  writeFileSync(path, 'sample-rate: 0.01\nnoiseMultiplier: 1.1\nsteps: 400\ndelta: 1e-5\n')
  const { stdout } = await cli.run(['account', '--config', path, '--steps', '500', '--json'])
  t.same(JSON.parse(stdout), {
    ...solve({ sampleRate: 0.01, noiseMultiplier: 1.1, steps: 500, delta: 1e-5 }),
    sampling: 'poisson',
  })
  writeFileSync(path, 'sample-rat: 0.01\n')
  refused(t, await cli.run(['account', '--config', path]), 2, /account\.yaml:1: sample-rat: unknown key/)
})

t.test('out of range or inconsistent: one line, exit code 1, in the names of the flags', async (t) => {
  const change = (name: string, value: string) =>
    without('epsilon').map((word, i, words) => (words[i - 1] === `--${name}` ? value : word))
  for (const [args, says] of [
    [change('sample-rate', '1.5'), /for --sample-rate, got 1\.5/],
    [change('noise-multiplier', '-1'), /for --noise-multiplier, got -1/],
    [change('noise-multiplier', '0'), /for --noise-multiplier, got 0/],
    [change('steps', '-3'), /for --steps, got -3/],
    [change('delta', '0'), /for --delta, got 0/],
    [change('delta', '1'), /for --delta, got 1/],
    [change('delta', '1e-300'), /for --delta, got 1e-300/],
    [[...without('noise-multiplier'), '--epsilon', '-1'], /for --epsilon, got -1/],
    [without('epsilon').slice(2), /leave out exactly one of .*left out are --sample-rate, --epsilon/],
    [[...without('epsilon'), '--epsilon', '1'], /leave out exactly one of .*none is left out/],
    [[], /leave out exactly one of/],
    [
      [...without('epsilon'), '--sampling', 'truncated-poisson', '--dataset-size', '10', '--max-batch-size', '16'],
      /at most datasetSize = 10 for --max-batch-size, got 16/,
    ],
    [
      [...without('epsilon'), '--sampling', 'fixed-size', '--dataset-size', '100', '--relation', 'replace-one'],
      /PLD accountant can handle.*got 'fixed-size-sampled'/,
    ],
    [
      [...without('epsilon'), '--sampling', 'truncated-poisson', '--dataset-size', '0', '--max-batch-size', '1'],
      /--dataset-size, got 0/,
    ],
  ] as const) {
    await t.test(args.join(' '), async (t) => refused(t, await cli.fail(t, ['account', ...args, '--json']), 1, says))
  }
})

t.test('flags that are wrong in themselves: exit code 2', async (t) => {
  for (const [args, says] of [
    [[...without('epsilon'), '--accountant', 'prv'], /--accountant: expected one of pld, rdp, got 'prv'/],
    [[...without('epsilon'), '--sampling', 'none'], /--sample-rate cannot be given with --sampling none/],
    [[...without('epsilon'), '--dataset-size', '9'], /--dataset-size cannot be given with --sampling poisson/],
    [[...without('epsilon'), '--sampling', 'truncated-poisson'], /truncated-poisson needs --dataset-size/],
    [
      [...without('epsilon'), '--sampling', 'fixed-size', '--dataset-size', '9', '--max-batch-size', '1'],
      /--sample-rate and --max-batch-size say the same/,
    ],
    [['--ledger', folder, '--steps', '3'], /--steps cannot be given with --ledger/],
    [['--ledger', folder, '--relation', 'zero-out'], /--relation cannot be given with --ledger/],
  ] as const) {
    await t.test(args.join(' '), async (t) => refused(t, await cli.fail(t, ['account', ...args]), 2, says))
  }
})

/** A run of ten steps in two segments; `ended` writes its certificate and gives the hash of a line. */
async function runOfTenSteps(name: string, key: 'os' | 'seed' = 'os') {
  const run = join(folder, name)
  mkdirSync(join(run, 'private'), { recursive: true })
  const path = join(run, 'private/ledger.jsonl')
  const fingerprint = 'a'.repeat(64)
  const mechanism = { noiseMultiplier: 1.5, sampleRate: 0.1 }
  const ledger = await Ledger.create(path, {
    key,
    ...mechanism,
    plannedSteps: 20,
    relation: 'replace-one',
    configurationFingerprint: fingerprint,
    dataFingerprint: fingerprint,
    software: 'test',
  })
  for (let step = 0; step < 6; step++) await ledger.append(step, mechanism)
  if (key === 'os') await ledger.beginSegment(4, 'test')
  for (let step = 6; step < 10; step++) await ledger.append(step, { noiseMultiplier: 2, sampleRate: 0.2 })
  const { position } = ledger
  await ledger.close()
  const certify = async (ledgerHash: string) => {
    mkdirSync(join(run, 'release'))
    await writeCertificate(
      join(run, 'release/certificate.json'),
      createCertificate({
        unit: 'example',
        relation: 'replace-one',
        ...mechanism,
        expectedBatchSize: 10,
        maxGradNorm: 1,
        clipping: 'flat',
        plannedSteps: 20,
        steps: 10,
        delta: 1e-6,
        epsilon: 3,
        accountant: { name: 'pld', bound: 'upper', tolerance: null },
        releases: [{ name: 'gradient', bound: 1, weight: 1 }],
        publicConstants: {},
        seeded: key === 'seed',
        software: { name: 'dp-moe', version: '0.1.0' },
        ledgerHash,
      }),
    )
  }
  return { run, path, position, certify }
}

t.test('the ledger of a run folder, segments and recovered steps included', async (t) => {
  const { run, path, position, certify } = await runOfTenSteps('run')
  refused(
    t,
    await cli.fail(t, ['account', '--ledger', run]),
    2,
    /--delta is needed: the run in .* has no certificate yet/,
  )
  const { code, stdout } = await cli.run(['account', '--ledger', run, '--delta', '1e-5', '--json'])
  t.equal(code, 0)
  const spent = composed(dpSgd(1.5, 0.1, 6), dpSgd(2, 0.2, 4))
  const expected = new PldAccountant({ relation: 'replace-one' }).compose(spent).epsilon(1e-5)
  t.same(JSON.parse(stdout), {
    ...expected,
    delta: 1e-5,
    noiseMultiplier: null,
    sampleRate: null,
    steps: 10,
    accountant: 'pld',
    relation: 'replace-one',
    sampling: 'poisson',
    plannedSteps: 20,
    seeded: false,
    comparedWith: null,
  })
  const shown = (await cli.run(['account', '--ledger', run, '--delta', '1e-5'])).stdout
  t.match(shown, /^noise multiplier +varies$/m)
  t.match(shown, /^planned steps +20$/m)
  t.match(shown, /^ledger +compared with no certificate or checkpoint/m)
  const plot = join(folder, 'run.svg')
  await cli.run(['account', '--ledger', run, '--delta', '1e-5', '--accountant', 'rdp', '--plot', plot])
  t.match(readFileSync(plot, 'utf8'), /accountant rdp, relation replace-one/)

  await certify(position.hash)
  t.match(JSON.parse((await cli.run(['account', '--ledger', run, '--json'])).stdout), {
    delta: 1e-6,
    comparedWith: 'certificate',
  })

  writeFileSync(path, readFileSync(path, 'utf8').replace('"step":3', '"step":2'))
  refused(t, await cli.fail(t, ['account', '--ledger', run]), 1, /ledger\.jsonl, line 5 was changed/)
  refused(t, await cli.fail(t, ['account', '--ledger', join(folder, 'none'), '--delta', '1e-5']), 1, /does not exist/)
})

t.test('the ledger of a seeded run: its epsilon bounds nothing', async (t) => {
  const { run } = await runOfTenSteps('seeded', 'seed')
  const { stdout } = await cli.run(['account', '--ledger', run, '--delta', '1e-5'])
  t.match(stdout, /^NOT private +noise and sampling come from a seed/m)
  t.notMatch(stdout, /certified/)
})

t.test('a ledger whose end is missing', async (t) => {
  const cutShort = (path: string, lines: number) =>
    writeFileSync(path, readFileSync(path, 'utf8').split('\n').slice(0, lines).join('\n').concat('\n'))

  await t.test('is not that of the certificate', async (t) => {
    const { run, path, position, certify } = await runOfTenSteps('certified')
    await certify(position.hash)
    cutShort(path, position.lines - 1)
    refused(t, await cli.fail(t, ['account', '--ledger', run]), 1, /not the whole ledger.*certificate is of 10 steps/)
  })

  await t.test('is not that which a checkpoint was written beside', async (t) => {
    const { run, path, position } = await runOfTenSteps('checkpoint')
    const facts = {
      nextStep: 8,
      updates: 8,
      key: 'os',
      keyFingerprint: null,
      configurationFingerprint: 'a'.repeat(64),
      ledger: position,
      extra: {},
    } as const
    const store = new CheckpointStore(join(run, 'private/checkpoints'))
    await store.save(facts, { parameters: new Map(), optimizer: new Map() })
    const account = ['account', '--ledger', run, '--delta', '1e-5']
    t.match((await cli.run(account)).stdout, /^ledger +whole, by the run's checkpoint$/m)
    cutShort(path, position.lines - 1)
    refused(t, await cli.fail(t, account), 1, /not the whole ledger.*a checkpoint was written after its line 12/)
  })
})
