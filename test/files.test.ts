import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { DpMoeError } from '../lib/errors.js'
import {
  fileError,
  replaceFile,
  sha256OfFile,
  writeFileAtomically,
  writeFolderAtomically,
  writeFully,
} from '../lib/files.js'

t.test('what the operating system reports becomes a sentence', async (t) => {
  const path = t.testdir({ file: 'text', full: { inside: '' } })
  const failures: [() => Promise<unknown>, string, RegExp][] = [
    [() => readFile(join(path, 'none')), 'FILE_NOT_FOUND', /^Cannot read P: it does not exist\. .* \(ENOENT\)$/],
    [() => readFile(path), 'FILE_ACCESS', /it is a folder, and a file was expected.* \(EISDIR\)$/],
    [() => readFile(join(path, 'file', 'x')), 'FILE_ACCESS', /a part of the path is a file.* \(ENOTDIR\)$/],
    [() => open(join(path, 'file'), 'wx'), 'FILE_EXISTS', /it exists already.* \(EEXIST\)$/],
    [() => open(join(path, 'x'.repeat(300)), 'w'), 'FILE_ACCESS', /the path is too long.* \(ENAMETOOLONG\)$/],
  ]
  for (const [work, code, message] of failures) {
    const cause = await work().catch((error: unknown) => error)
    t.match(fileError(cause, 'read', 'P'), { code, message, cause })
  }
  for (const [systemCode, code] of [
    ['EACCES', 'FILE_ACCESS'],
    ['EROFS', 'FILE_ACCESS'],
    ['EMFILE', 'FILE_ACCESS'],
    ['ENOSPC', 'DISK_FULL'],
    ['EDQUOT', 'DISK_FULL'],
    ['EFBIG', 'DISK_FULL'],
    ['EXYZ', 'FILE_ACCESS'],
  ]) {
    const error = Object.assign(new Error(), { code: systemCode, syscall: 'write' })
    t.match(fileError(error, 'write', 'P'), { code, message: new RegExp(`^Cannot write P: .* \\(${systemCode}\\)$`) })
  }
  for (const error of [new DpMoeError('ABORTED', 'stopped'), new TypeError('bug'), 'text', undefined]) {
    t.equal(fileError(error, 'read', 'P'), error, 'anything else is left as it is')
  }
})

t.test('a file is replaced as a whole or not at all', async (t) => {
  const folder = t.testdir({ file: 'before' })
  const path = join(folder, 'file')
  const stopped = new Error('stopped')
  const writing = writeFileAtomically(path, async (handle) => {
    await writeFully(handle, Buffer.from('half'), 0)
    t.equal(readFileSync(path, 'utf8'), 'before', 'not seen while it is written')
    throw stopped
  })
  await t.rejects(writing, stopped)
  t.equal(readFileSync(path, 'utf8'), 'before')
  await replaceFile(path, 'after', { mode: 0o600 })
  t.equal(readFileSync(path, 'utf8'), 'after')
  t.equal(statSync(path).mode & 0o777, 0o600)
  t.same(readdirSync(folder), ['file'], 'no temporary file is left')
  await t.rejects(replaceFile(join(folder, 'none', 'file'), ''), {
    code: 'FILE_NOT_FOUND',
    message: /Cannot write .*none/,
  })
  await t.rejects(replaceFile(folder, ''), { code: /FILE_/ })
})

t.test('what is written is flushed before it gets its name, and the name after that', async (t) => {
  const calls: string[] = []
  const watch = (handle: fs.FileHandle, what: string) => {
    const sync = handle.sync.bind(handle)
    handle.sync = async () => {
      await sync()
      calls.push(`flush ${what}`)
    }
    return handle
  }
  const mocked = {
    ...fs,
    open: async (path: string, flags: string, mode?: number) =>
      watch(await fs.open(path, flags, mode), flags === 'r' ? 'folder' : 'file'),
    rename: async (from: string, to: string) => {
      await fs.rename(from, to)
      calls.push('rename')
    },
  }
  const files = await t.mockImport<typeof import('../lib/files.js')>('../lib/files.js', { 'node:fs/promises': mocked })
  await files.replaceFile(join(t.testdir(), 'file'), 'text')
  t.same(calls, ['flush file', 'rename', 'flush folder'])
  calls.length = 0
  await files.writeFolderAtomically(join(t.testdirName, 'folder'), (folder) => files.replaceFile(join(folder, 'a'), ''))
  t.same(calls.slice(-3), ['flush folder', 'rename', 'flush folder'])
})

t.test('a folder is written as a whole or not at all', async (t) => {
  const parent = t.testdir()
  const path = join(parent, 'folder')
  const write = (content: string) => (folder: string) => replaceFile(join(folder, 'file'), content)
  await writeFolderAtomically(path, write('first'))
  await t.rejects(writeFolderAtomically(path, write('second')), { code: 'FILE_EXISTS' })
  t.equal(readFileSync(join(path, 'file'), 'utf8'), 'first')
  await writeFolderAtomically(path, write('second'), { replace: true })
  t.equal(readFileSync(join(path, 'file'), 'utf8'), 'second')
  const stopped = new Error('stopped')
  await t.rejects(
    writeFolderAtomically(path, () => Promise.reject(stopped), { replace: true }),
    stopped,
  )
  t.same(readdirSync(parent), ['folder'])
  mkdirSync(join(parent, 'empty'))
  await writeFolderAtomically(join(parent, 'empty'), write('third'))
})

t.test('the hash of a file', async (t) => {
  const path = join(t.testdir(), 'file')
  writeFileSync(path, '')
  t.equal(await sha256OfFile(path), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  writeFileSync(path, Buffer.alloc(3_000_000, 'a'))
  t.equal(await sha256OfFile(path), '2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4')
})
