import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import fc from 'fast-check'
import t from 'tap'
import { fingerprint } from '../../lib/privacy/fingerprint.js'
import { Ledger, type LedgerRun, readLedger } from '../../lib/privacy/ledger.js'
import { parseLedger } from '../../lib/privacy/ledger-format.js'

const mechanism = { noiseMultiplier: 1.25, sampleRate: 0.01 }
const secret = new Uint8Array(32).fill(7)
const run: LedgerRun = {
  key: 'os',
  ...mechanism,
  plannedSteps: 20,
  relation: 'zero-out',
  configurationFingerprint: fingerprint(secret, { batch: 4 }),
  dataFingerprint: fingerprint(secret, 'data'),
  software: '0.1.0',
}

/** A ledger of two segments with `steps` steps, the last line being a step. */
async function write(path: string, steps: number, facts: Partial<LedgerRun> = {}): Promise<void> {
  await using ledger = await Ledger.create(path, { ...run, ...facts })
  for (let step = 0; step < steps; step++) {
    if (step === 2 && ledger.summary.run.key === 'os') await ledger.beginSegment(1, '0.1.0')
    await ledger.append(step, mechanism)
  }
}

t.test('says what was spent, by segment', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 5)
  const { segments, steps, ended, run: entry } = await readLedger(path)
  t.same(segments, [
    { segment: 1, checkpointStep: 0, steps: [{ ...mechanism, firstStep: 0, count: 2 }] },
    { segment: 2, checkpointStep: 1, steps: [{ ...mechanism, firstStep: 2, count: 3 }] },
  ])
  t.equal(steps, 5)
  t.equal(ended, false)
  t.match(entry, run)
})

t.test('a step entry holds its number and mechanism, nothing else', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 1)
  const { hash, ...entry } = JSON.parse(readFileSync(path, 'utf8').split('\n')[1]!)
  t.same(entry, { type: 'step', step: 0, noiseMultiplier: 1.25, sampleRate: 0.01 })
  t.match(hash, /^[0-9a-f]{64}$/)
})

t.test('the entry is on disk when append resolves', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await using ledger = await Ledger.create(path, run)
  for (let step = 0; step < 5; step++) {
    await ledger.append(step, mechanism)
    t.equal(parseLedger(path, readFileSync(path)).entries.length, step + 2)
  }
})

t.test('any edit before the last line is refused, naming the line', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 6)
  const bytes = readFileSync(path)
  const lastLine = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1
  const lineOf = (position: number) => bytes.subarray(0, position).filter((byte) => byte === 0x0a).length + 1
  const before = fc.nat(lastLine - 1)

  t.test('a changed byte', async () => {
    const refused = (position: number, mask: number, end = bytes.length) => {
      const edited = Buffer.from(bytes.subarray(0, end))
      edited[position]! ^= mask
      return !!t.throws(() => parseLedger(path, edited), {
        code: 'LEDGER_DAMAGED',
        message: new RegExp(`line ${lineOf(position)} `),
      })
    }
    fc.assert(fc.property(before, fc.integer({ min: 1, max: 255 }), (position, mask) => refused(position, mask)))
    for (let position = 0; position < lastLine; position++) refused(position, 1)
    refused(lastLine - 1, 1, bytes.length - 40) // the newline before a torn line: both are not one torn line
  })

  t.test('bytes removed or added', async () => {
    const edit = fc.tuple(before, fc.nat(200), fc.uint8Array({ maxLength: 200 }))
    fc.assert(
      fc.property(edit, ([position, removed, added]) => {
        const rest = bytes.subarray(Math.min(position + removed, lastLine))
        const edited = Buffer.concat([bytes.subarray(0, position), added, rest])
        return edited.equals(bytes) || !!t.throws(() => parseLedger(path, edited), { code: 'LEDGER_DAMAGED' })
      }),
    )
  })

  t.test('lines left out, repeated or swapped', async () => {
    const lines = bytes.toString().trimEnd().split('\n')
    const rejoined = (order: number[]) => Buffer.from(`${order.map((index) => lines[index]).join('\n')}\n`)
    const all = lines.map((_, index) => index)
    for (let i = 0; i < lines.length - 1; i++) {
      t.throws(() => parseLedger(path, rejoined(all.filter((index) => index !== i))), { code: 'LEDGER_DAMAGED' })
      t.throws(() => parseLedger(path, rejoined([...all.slice(0, i + 1), ...all.slice(i)])), { code: 'LEDGER_DAMAGED' })
      const swapped = [...all.slice(0, i), i + 1, i, ...all.slice(i + 2)]
      t.throws(() => parseLedger(path, rejoined(swapped)), { code: 'LEDGER_DAMAGED' })
    }
  })

  t.test('on opening too, and nothing is changed', async (t) => {
    const edited = Buffer.from(bytes)
    edited[lastLine - 5]! ^= 1
    writeFileSync(path, edited)
    await t.rejects(Ledger.open(path), { code: 'LEDGER_DAMAGED', message: /line 7 / })
    await t.rejects(readLedger(path), { code: 'LEDGER_DAMAGED' })
    t.ok(readFileSync(path).equals(edited))
    t.notOk(existsSync(`${path}.lock`), 'and the lock is free again')
  })
})

t.test('a last line that is whole but changed is an edit, not a torn line', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 4)
  const text = readFileSync(path, 'utf8')
  const at = text.lastIndexOf('1.25')
  writeFileSync(path, `${text.slice(0, at)}9${text.slice(at + 1)}`)
  await t.rejects(Ledger.open(path), { code: 'LEDGER_DAMAGED', message: /line 6 was changed/ })
})

t.test('cut at any byte of its last line, the ledger counts that line as spent', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 4)
  const bytes = readFileSync(path)
  const lastLine = bytes.lastIndexOf(0x0a, bytes.length - 2) + 1
  for (let end = lastLine + 1; end < bytes.length; end++) {
    writeFileSync(path, bytes.subarray(0, end))
    t.equal((await readLedger(path)).steps, 4, `cut at byte ${end}: spent when only read`)
    const ledger = await Ledger.open(path)
    t.equal(ledger.steps, 4, 'and when opened')
    await ledger.append(4, mechanism)
    await ledger.close()
    const { entries, torn } = parseLedger(path, readFileSync(path))
    t.notOk(torn)
    t.match(entries.slice(-2), [
      { type: 'recovered', step: 3, ...mechanism },
      { type: 'step', step: 4 },
    ])
  }
})

t.test('garbage after the last line is a torn line', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 2)
  const bytes = readFileSync(path)
  for (const tail of [Buffer.alloc(4096), Buffer.from([0xff, 0xfe]), Buffer.from('{"type":"end"')]) {
    writeFileSync(path, Buffer.concat([bytes, tail]))
    t.equal((await readLedger(path)).steps, 3)
  }
})

t.test('a torn line counts with the costliest mechanism of the run', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  const ledger = await Ledger.create(path, run)
  await ledger.append(0, { noiseMultiplier: 0.5, sampleRate: 0.001 })
  await ledger.append(1, { noiseMultiplier: 2, sampleRate: 0.2 })
  await ledger.close()
  writeFileSync(path, `${readFileSync(path, 'utf8')}{"ty`)
  const last = (await readLedger(path)).segments[0]!.steps.at(-1)
  t.match(last, { noiseMultiplier: 0.5, sampleRate: 0.2, firstStep: 2, count: 1 })
})

t.test('a redone step fits its recovered entry unless it costs more', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  let ledger = await Ledger.create(path, { ...run, key: 'seed' })
  await ledger.append(0, { noiseMultiplier: 1, sampleRate: 0.02 })
  await ledger.close()
  writeFileSync(path, `${readFileSync(path, 'utf8')}{"type":"step"`)
  ledger = await Ledger.open(path)
  await ledger.append(1, mechanism)
  await ledger.append(1, { noiseMultiplier: 1, sampleRate: 0.02 })
  await t.rejects(ledger.append(1, { noiseMultiplier: 1, sampleRate: 0.03 }), { code: 'LEDGER_DAMAGED' })
  await t.rejects(ledger.append(1, { noiseMultiplier: 0.9, sampleRate: 0.02 }), { code: 'LEDGER_DAMAGED' })
  t.equal(ledger.steps, 2)
  await ledger.close()
})

t.test('a ledger without a whole first line cannot be trusted', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 0)
  const bytes = readFileSync(path)
  for (const content of ['', '{', 'a,b\n1,2\n', bytes.subarray(0, -1), bytes.subarray(0, 50)]) {
    writeFileSync(path, content)
    await t.rejects(readLedger(path), { code: 'LEDGER_DAMAGED', message: /line 1 / })
  }
})

t.test('steps are numbered without gaps', async (t) => {
  await using ledger = await Ledger.create(join(t.testdir(), 'ledger.jsonl'), run)
  await ledger.append(0, mechanism)
  for (const step of [2, -1, 0.5, Number.NaN]) {
    await t.rejects(ledger.append(step, mechanism), { code: 'INVALID_ARGUMENT', message: /from 0 to 1/ })
  }
  t.equal(ledger.steps, 1)
})

t.test('a redone step', async (t) => {
  for (const key of ['seed', 'file'] as const) {
    const path = join(t.testdir(), 'ledger.jsonl')
    await write(path, 3, { key })
    const bytes = readFileSync(path)
    const ledger = await Ledger.open(path)
    await ledger.append(1, mechanism)
    await t.rejects(ledger.append(1, { ...mechanism, noiseMultiplier: 1 }), {
      code: 'LEDGER_DAMAGED',
      message: /Step 1/,
    })
    await t.rejects(ledger.beginSegment(1, '0.1.0'), { code: 'INVALID_ARGUMENT' }, `${key}: has one segment`)
    await ledger.close()
    t.ok(readFileSync(path).equals(bytes), `${key}: is checked, and none is added`)
  }
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 3)
  await using ledger = await Ledger.open(path)
  await t.rejects(ledger.append(1, mechanism), {
    code: 'INVALID_ARGUMENT',
    message: /spent already.*goes on at step 3/,
  })
})

t.test('the planned steps are the limit, over all segments', async (t) => {
  await using ledger = await Ledger.create(join(t.testdir(), 'ledger.jsonl'), { ...run, plannedSteps: 2 })
  await ledger.append(0, mechanism)
  await ledger.beginSegment(0, '0.1.0')
  await ledger.append(1, mechanism)
  await t.rejects(ledger.append(2, mechanism), { code: 'BUDGET_EXCEEDED', message: /planned for 2 steps/ })
  t.equal(ledger.steps, 2)
})

t.test('nothing follows the end', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  const ledger = await Ledger.create(path, run)
  await ledger.append(0, mechanism)
  await ledger.end()
  await ledger.end()
  await t.rejects(ledger.append(1, mechanism), { code: 'INVALID_ARGUMENT', message: /has ended/ })
  await t.rejects(ledger.beginSegment(0, '0.1.0'), { code: 'INVALID_ARGUMENT', message: /has ended/ })
  await ledger.close()
  t.match(await readLedger(path), { ended: true, steps: 1 })
})

t.test('a mechanism out of range is refused', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await t.rejects(Ledger.create(path, { ...run, sampleRate: 2 }), {
    code: 'INVALID_ARGUMENT',
    message: /sampleRate, got 2/,
  })
  t.notOk(existsSync(path), 'and no ledger is left')
  await using ledger = await Ledger.create(path, run)
  for (const bad of [
    { sampleRate: 0 },
    { sampleRate: Number.NaN },
    { noiseMultiplier: -1 },
    { noiseMultiplier: 1 / 0 },
  ]) {
    await t.rejects(ledger.append(0, { ...mechanism, ...bad }), { code: 'INVALID_ARGUMENT' })
  }
  t.equal(ledger.steps, 0)
})

t.test('appends that are not awaited are written in order', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await using ledger = await Ledger.create(path, run)
  await Promise.all(Array.from({ length: 20 }, (_, step) => ledger.append(step, mechanism)))
  t.equal((await readLedger(path)).steps, 20)
})

t.test('one run is written by one process', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  const ledger = await Ledger.create(path, run)
  await t.rejects(Ledger.open(path), {
    code: 'FILE_ACCESS',
    message: new RegExp(`Process ${process.pid} on .* is writing`),
  })
  t.match(await readLedger(path), { steps: 0 }, 'reading needs no lock')
  await ledger.close()
  await (await Ledger.open(path)).close()
})

t.test('a process that lost its lock writes no more', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await using ledger = await Ledger.create(path, run)
  rmSync(`${path}.lock`, { recursive: true })
  const lost = async () => {
    for (let step = 0; step < run.plannedSteps; step++) {
      await ledger.append(step, mechanism)
      await setTimeout(1000)
    }
  }
  await t.rejects(lost(), { code: 'FILE_ACCESS', message: /was taken by another process/ })
})

t.test('a step is flushed before append resolves, and flushed after it is written', async (t) => {
  const calls: string[] = []
  const recording: typeof fs.open = async (...args) => {
    const handle = await fs.open(...args)
    return new Proxy(handle, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name)
        if (typeof value !== 'function') return value
        return async (...given: unknown[]) => {
          const result: unknown = await value.apply(target, given)
          calls.push(String(name))
          return result
        }
      },
    })
  }
  const { Ledger: Recorded } = await t.mockImport<typeof import('../../lib/privacy/ledger.js')>(
    '../../lib/privacy/ledger.js',
    { 'node:fs/promises': { ...fs, open: recording } },
  )
  await using ledger = await Recorded.create(join(t.testdir(), 'ledger.jsonl'), run)
  calls.length = 0
  await ledger.append(0, mechanism)
  t.same(calls, ['write', 'datasync'])
})

t.test('a checkpoint knows whether its ledger was put back', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 3)
  const older = readFileSync(path)
  let ledger = await Ledger.open(path)
  const before = ledger.position
  await ledger.append(3, mechanism)
  const { position } = ledger
  await ledger.append(4, mechanism)
  await ledger.verifyContains(before)
  await ledger.verifyContains(position)
  await ledger.close()
  writeFileSync(path, older)
  ledger = await Ledger.open(path)
  await ledger.verifyContains(before)
  await t.rejects(ledger.verifyContains(position), { code: 'LEDGER_DAMAGED', message: /line 6 .*replaced/ })
  await ledger.append(3, { ...mechanism, sampleRate: 0.02 })
  await t.rejects(ledger.verifyContains(position), { code: 'LEDGER_DAMAGED' }, 'another line in its place')
  await ledger.close()
})

t.test('a second ledger is not begun over a first', async (t) => {
  const path = join(t.testdir(), 'ledger.jsonl')
  await write(path, 1)
  const { size } = statSync(path)
  await t.rejects(Ledger.create(path, run), { code: 'FILE_EXISTS' })
  t.equal(statSync(path).size, size)
  await t.rejects(Ledger.open(join(t.testdirName, 'none.jsonl')), { code: 'FILE_NOT_FOUND' })
})

t.test('fingerprints', async (t) => {
  t.equal(fingerprint(secret, { a: 1, b: { c: 2, d: 3 } }), fingerprint(secret, { b: { d: 3, c: 2 }, a: 1 }))
  t.not(fingerprint(secret, { a: 1 }), fingerprint(secret, { a: 2 }))
  t.not(fingerprint(secret, { a: 1 }), fingerprint(new Uint8Array(32), { a: 1 }), 'are keyed')
})
