import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { replaceFile } from '../../lib/files.js'
import { lockFile } from '../../lib/privacy/file-lock.js'
import { findReleaseFolder, RunFolder } from '../../lib/train/run-folder.js'
import { compileChild, resultOf, startChild } from '../children/child.js'

const AS_NOBODY = [
  'setpriv',
  '--reuid=65534',
  '--regid=65534',
  '--clear-groups',
  '--inh-caps=-all',
  '--bounding-set=-all',
]

t.test('a new run', async (t) => {
  const path = join(t.testdir(), 'a', 'b', 'run')
  const run = await RunFolder.create(path)
  t.same(readdirSync(path), ['private'], 'no release before there is one')
  t.same(readdirSync(run.privateFolder).sort(), ['README.txt', 'checkpoints', 'secret'])
  t.equal(statSync(run.privateFolder).mode & 0o777, 0o700)
  t.equal(statSync(join(run.privateFolder, 'secret')).mode & 0o777, 0o600)
  t.match(
    readFileSync(join(run.privateFolder, 'README.txt'), 'utf8'),
    /Nothing in this folder is covered by the privacy guarantee/,
  )
  const other = await RunFolder.create(join(t.testdirName, 'other'))
  t.notSame(other.secret, run.secret)
  t.same((await RunFolder.open(path)).secret, run.secret)
})

t.test('where a run can be made', async (t) => {
  t.test('an empty folder', async (t) => {
    await RunFolder.create(t.testdir())
  })

  t.test('a folder that holds anything', async (t) => {
    const path = t.testdir({ thesis: 'years of work' })
    for (const overwrite of [false, true]) {
      await t.rejects(RunFolder.create(path, { overwrite }), {
        code: 'FILE_EXISTS',
        message: /is not empty \(thesis\)\. Choose another folder: it is not a run/,
      })
    }
    t.same(readdirSync(path), ['thesis'])
  })

  t.test('a run and something else', async (t) => {
    const path = join(t.testdir(), 'run')
    await RunFolder.create(path)
    writeFileSync(join(path, 'notes'), 'mine')
    await t.rejects(RunFolder.create(path, { overwrite: true }), { code: 'FILE_EXISTS' })
    t.ok(existsSync(join(path, 'private', 'secret')))
  })

  t.test('an earlier run', async (t) => {
    const path = join(t.testdir(), 'run')
    const first = await RunFolder.create(path)
    await first.writeRelease((folder) => replaceFile(join(folder, 'config.json'), '{}'))
    await t.rejects(RunFolder.create(path), {
      code: 'FILE_EXISTS',
      message: /private, release\).*--resume.*--overwrite/,
    })
    const second = await RunFolder.create(path, { overwrite: true })
    t.notSame(second.secret, first.secret)
    t.same(readdirSync(path), ['private'])
  })

  t.test('a run that a process is writing', async (t) => {
    const path = join(t.testdir(), 'run')
    const run = await RunFolder.create(path)
    writeFileSync(run.ledgerFile, '')
    const lock = await lockFile(run.ledgerFile)
    await t.rejects(RunFolder.create(path, { overwrite: true }), { code: 'FILE_ACCESS', message: /is writing/ })
    await lock.release()
    await RunFolder.create(path, { overwrite: true })
  })

  t.test('a file, or below a file', async (t) => {
    const path = t.testdir({ file: 'text' })
    await t.rejects(RunFolder.create(join(path, 'file')), { code: 'FILE_EXISTS', message: /is a file/ })
    await t.rejects(RunFolder.create(join(path, 'file', 'run')), {
      code: 'FILE_ACCESS',
      message: /a part of the path is a file/,
    })
    t.same(readdirSync(path), ['file'])
  })

  t.test('one folder for two runs at once', async (t) => {
    const path = join(t.testdir(), 'run')
    const results = await Promise.allSettled([RunFolder.create(path), RunFolder.create(path), RunFolder.create(path)])
    const made = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    t.equal(made.length, 1)
    for (const result of results) if (result.status === 'rejected') t.match(result.reason, { code: 'FILE_EXISTS' })
    t.same((await RunFolder.open(path)).secret, made[0]!.secret)
    t.same(readdirSync(path), ['private'])
  })

  t.test('a folder that cannot be written', async (t) => {
    const path = t.testdir({ locked: {} })
    const locked = join(path, 'locked')
    chmodSync(locked, 0o555)
    // Root may write anywhere, so a child without its rights tries.
    const script = compileChild('create-run.ts', path)
    const child = startChild(script, [join(locked, 'a', 'run')], process.getuid?.() === 0 ? AS_NOBODY : [])
    t.match(await resultOf(child), { code: 'FILE_ACCESS', message: /Cannot create .*run: permission was denied/ })
    t.same(readdirSync(locked), [])
  })
})

t.test('a run that failed before its first step leaves nothing', async (t) => {
  const root = t.testdir({ empty: {}, shared: {} })
  for (const path of [join(root, 'a', 'b', 'run'), join(root, 'empty')]) {
    const run = await RunFolder.create(path)
    writeFileSync(join(run.privateFolder, 'ledger.jsonl'), '')
    await run.discard()
  }
  t.same(readdirSync(root).sort(), ['empty', 'shared'])
  t.same(readdirSync(join(root, 'empty')), [])
  const run = await RunFolder.create(join(root, 'shared', 'runs', 'mine'))
  await RunFolder.create(join(root, 'shared', 'runs', 'theirs'))
  await run.discard()
  t.same(readdirSync(join(root, 'shared', 'runs')), ['theirs'], 'but what others made meanwhile')
})

t.test('a run that is not there', async (t) => {
  const path = t.testdir({ file: '' })
  for (const name of ['none', 'file', '.']) {
    await t.rejects(RunFolder.open(join(path, name)), { code: 'FILE_NOT_FOUND', message: /holds no run to resume/ })
  }
})

t.test('a secret that is damaged', async (t) => {
  const run = await RunFolder.create(join(t.testdir(), 'run'))
  writeFileSync(join(run.privateFolder, 'secret'), 'abc')
  await t.rejects(RunFolder.open(run.path), { code: 'CHECKPOINT_DAMAGED', message: /Expected 64 hex digits/ })
})

t.test('a release is written as a whole', async (t) => {
  const run = await RunFolder.create(join(t.testdir(), 'run'))
  const model = (folder: string) => join(folder, 'model.safetensors')
  await t.rejects(findReleaseFolder(run.path), { code: 'FILE_NOT_FOUND', message: /has not finished.*--resume/ })
  await t.rejects(
    run.writeRelease(async (folder) => {
      await replaceFile(model(folder), 'half of it')
      throw new Error('stopped')
    }),
    { message: 'stopped' },
  )
  t.same(readdirSync(run.path), ['private'])
  for (const content of ['first', 'second']) {
    await run.writeRelease(async (folder) => {
      await replaceFile(model(folder), content)
      await replaceFile(join(folder, 'config.json'), '{}')
    })
    t.equal(readFileSync(model(run.releaseFolder), 'utf8'), content)
    t.same(readdirSync(run.path).sort(), ['private', 'release'])
  }
  t.equal(await findReleaseFolder(run.path), run.releaseFolder)
  t.equal(await findReleaseFolder(run.releaseFolder), run.releaseFolder)
  await t.rejects(findReleaseFolder(dirname(run.path)), { code: 'FILE_NOT_FOUND', message: /holds no model/ })
})

t.test('what a killed process left half written is removed', async (t) => {
  const run = await RunFolder.create(join(t.testdir(), 'run'))
  mkdirSync(join(run.path, '.release.abc.dp-moe-tmp'))
  writeFileSync(join(run.path, '.release.abc.dp-moe-tmp', 'model.safetensors'), 'half')
  writeFileSync(join(run.checkpointsFolder, '.step-0000000001.abc.dp-moe-tmp'), 'half')
  writeFileSync(join(run.privateFolder, 'kept'), '')
  await run.removeTemporaries()
  t.same(readdirSync(run.path), ['private'])
  t.same(readdirSync(run.checkpointsFolder), [])
  t.ok(existsSync(join(run.privateFolder, 'kept')))
})
