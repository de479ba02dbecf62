import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-build-'))
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

/** A PATH that holds these programs, shell scripts, and nothing else. */
function path(programs: Record<string, string>): string {
  const bin = mkdtempSync(join(folder, 'bin-'))
  mkdirSync(bin, { recursive: true })
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  return bin
}

const build = (PATH: string) => cli.run(['build', '--json'], { env: { PATH, CXX: '' } })

t.test('a tool that is missing: one line that says how to get it, exit code 1', async (t) => {
  const tools = { cmake: 'echo "cmake version 3.25.1"', make: 'exit 0' }
  refused(t, await build(path({})), 1, /cmake 3\.22 or newer is needed, none was found .*apt .*dnf .*brew/)
  refused(
    t,
    await build(path({ cmake: 'echo "cmake version 3.9.2"' })),
    1,
    /cmake 3\.22 or newer is needed, found 3\.9/,
  )
  refused(t, await build(path({ cmake: tools.cmake })), 1, /make or ninja is needed.*apt .*dnf .*xcode-select/)
  refused(t, await build(path(tools)), 1, /C\+\+20 compiler is needed.*apt .*dnf .*xcode-select/)
  refused(t, await build(path({ ...tools, 'c++': 'exit 1' })), 1, /C\+\+20 compiler is needed/)
})
