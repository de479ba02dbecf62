import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, utimesSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import t from 'tap'
import { replaceFile, writeFolderAtomically } from '../lib/files.js'
import { temporaryName } from '../lib/temporaries.js'

const write = (content: string) => (folder: string) => replaceFile(join(folder, 'file'), content)
const contentOf = (folder: string) => readFileSync(join(folder, 'file'), 'utf8')
const refusal = () => Object.assign(new Error('refused'), { code: 'EIO', syscall: 'rename' })

/** lib/files.ts with some file calls replaced. */
const withCalls = (t: Tap, calls: Partial<typeof fs>) =>
  t.mockImport<typeof import('../lib/files.js')>('../lib/files.js', { 'node:fs/promises': { ...fs, ...calls } })
type Tap = typeof t

t.test('the old folder goes once the new one has its name and is on disk', async (t) => {
  const path = join(t.testdir(), 'model')
  await writeFolderAtomically(path, write('old'))
  const calls: string[] = []
  const short = (place: string) => (place === path ? 'model' : /\.old\.dp-moe-tmp$/.test(place) ? 'old' : 'new')
  const { writeFolderAtomically: replace } = await withCalls(t as Tap, {
    rename: async (from, to) => {
      if (dirname(String(to)) === dirname(path)) calls.push(`${short(String(from))} to ${short(String(to))}`)
      await fs.rename(from, to)
    },
    open: (async (place: string, flags: string, mode?: number) => {
      if (place === dirname(path)) calls.push('flush')
      return await fs.open(place, flags, mode)
    }) as typeof fs.open,
    rm: async (place, options) => {
      calls.push(`remove ${short(String(place))}, there is ${contentOf(path)}`)
      await fs.rm(place, options)
    },
  })
  await replace(path, write('new'), { replace: true })
  t.same(calls, ['model to old', 'new to model', 'flush', 'remove old, there is new'])
  t.same(readdirSync(dirname(path)), ['model'])
})

t.test('a new folder that does not get its name: the old one has it again', async (t) => {
  const path = join(t.testdir(), 'model')
  await writeFolderAtomically(path, write('old'))
  const { writeFolderAtomically: replace } = await withCalls(t as Tap, {
    rename: async (from, to) => {
      if (to === path && !/\.old\.dp-moe-tmp$/.test(String(from))) throw refusal()
      await fs.rename(from, to)
    },
  })
  await t.rejects(replace(path, write('new'), { replace: true }), { code: 'FILE_ACCESS' })
  t.equal(contentOf(path), 'old')
  t.same(readdirSync(dirname(path)), ['model'])
})

t.test('an old folder that cannot be removed: the new one stays', async (t) => {
  const path = join(t.testdir(), 'model')
  await writeFolderAtomically(path, write('old'))
  const { writeFolderAtomically: replace } = await withCalls(t as Tap, { rm: () => Promise.reject(refusal()) })
  await replace(path, write('new'), { replace: true })
  t.equal(contentOf(path), 'new')
  t.equal(readdirSync(dirname(path)).length, 2)
})

t.test('what killed processes left of a folder goes when it is written again, and nothing else does', async (t) => {
  const root = t.testdir()
  const path = join(root, 'model')
  const { pid: gone } = spawnSync(process.execPath, ['--version'])
  const day = 86_400_000
  const make = (name: string, ofPid: number | undefined, { age = 0, host = '' } = {}) => {
    const made = name.replace(`-${process.pid}-`, `-${ofPid ?? process.pid}-`)
    const folder = host === '' ? made : made.replace(/[0-9a-f]{8}(?=-\d)/, host)
    mkdirSync(folder)
    const then = new Date(Date.now() - age)
    utimesSync(folder, then, then)
    return basename(folder)
  }
  const half = () => temporaryName(path)
  const removedFirst = [
    make(half(), gone),
    make(half(), undefined, { age: day }), // the number of this process, from before it began
    make(half(), gone, { host: '00000000', age: 2 * day }),
  ]
  const old = make(temporaryName(path, 'old'), gone)
  const kept = [
    make(half(), undefined),
    make(half(), process.ppid),
    make(half(), gone, { host: '00000000' }),
    make(temporaryName(path, 'old'), process.ppid),
    make(temporaryName(join(root, 'model.other')), gone),
    make(temporaryName(join(root, 'other')), gone),
  ]
  const stopped = new Error('stopped')
  const failing = writeFolderAtomically(path, async () => {
    const names = readdirSync(root)
    for (const name of removedFirst) t.notOk(names.includes(name))
    throw stopped
  })
  await t.rejects(failing, stopped)
  t.same(readdirSync(root).sort(), [old, ...kept].sort(), 'an old folder is kept until there is a new one')
  await writeFolderAtomically(path, write('new'))
  t.same(readdirSync(root).sort(), ['model', ...kept].sort())
})
