import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { canMount, compileChild, resultOf, smallDisk, startChild } from '../children/child.js'

interface Result {
  codes: Record<string, unknown>
  appended: number
  recorded: number
  endsWithNewline: boolean
  saved: number
  loaded: number
  value: number
  damaged: number
  leftovers: string[]
  names: string[]
}

function check(t: Test, result: Result): void {
  t.match(result.codes, { save: 'DISK_FULL', append: 'DISK_FULL', appendAgain: 'DISK_FULL' })
  t.type(result.codes.release, 'string', 'the release was not written')
  t.ok(result.appended > 0 && result.saved > 1, 'the disk was not full from the start')
  t.equal(result.recorded, result.appended, 'the ledger holds the steps that were made, no more')
  t.ok(result.endsWithNewline, 'the line that did not fit was cut back')
  t.equal(result.loaded, result.saved, 'the last checkpoint that was saved loads')
  t.equal(result.value, result.saved)
  t.equal(result.damaged, 0)
  t.same(result.leftovers, [], 'no partial file is left')
  t.same(result.names, ['private'], 'and no partial release')
}

const root = t.testdir({ mounted: {}, limited: {} })
const script = compileChild('fill-disk.ts', root)

const mountable = canMount(join(root, 'mounted')) ? false : 'needs root or user namespaces'

t.test('a file system that fills up', { skip: mountable }, async (t) => {
  const folder = join(root, 'mounted')
  check(t, (await resultOf(startChild(script, [folder], smallDisk(folder, 262_144)))) as Result)
})

const limitable = spawnSync('prlimit', ['--version']).status === 0 ? false : 'needs prlimit'

t.test('a limit on file sizes', { skip: limitable }, async (t) => {
  check(t, (await resultOf(startChild(script, [join(root, 'limited'), '30000']))) as Result)
})
