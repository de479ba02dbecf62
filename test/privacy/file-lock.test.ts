import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lockFile } from '../../lib/privacy/file-lock.js'
import { compileChild, killAfter, startChild } from '../children/child.js'

const root = t.testdir()
const script = compileChild('hold-lock.ts', root)

t.test('killed at any moment of taking or releasing it, the lock of a file is free at once', async (t) => {
  const path = join(root, 'file')
  writeFileSync(path, '')
  for (let round = 0; round < 16; round++) {
    const lines = await killAfter(startChild(script, [path]), Math.random() * 40)
    t.ok(lines.length > 0, `round ${round}: the child got the lock of the killed one`)
    const lock = await lockFile(path)
    await lock.release()
    t.same(
      readdirSync(root).filter((name) => /^file./.test(name)),
      [],
      'nothing is left beside the file',
    )
  }
})

t.test('a lock that is held', async (t) => {
  const path = join(root, 'held')
  writeFileSync(path, '')
  const lock = await lockFile(path)
  t.equal(lock.lost, undefined)
  for (let attempt = 0; attempt < 2; attempt++) {
    await t.rejects(lockFile(path), { code: 'FILE_ACCESS', message: new RegExp(`^Process ${process.pid} on `) })
  }
  await lock.release()
  const again = await Promise.allSettled([lockFile(path), lockFile(path), lockFile(path)])
  t.equal(again.filter(({ status }) => status === 'fulfilled').length, 1, 'one of several gets it')
})
