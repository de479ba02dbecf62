import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Test } from 'tap'
import { compile, ROOT } from '../../support/compile.js'

/** What a command line printed and how it ended. */
export interface Finished {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly input?: string | Uint8Array
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** A command to run it under. */
  readonly prefix?: readonly string[]
  /** Another script than the compiled one. */
  readonly main?: string
  /** Sees the child as soon as it is started. */
  readonly started?: (child: ChildProcess) => void
}

/**
 * The command line of these sources, compiled into a folder of its own beside dist/: it starts fast, needs no loader, and a
 * stale dist/ cannot hide a fault.
 */
export class TestCli {
  readonly main: string
  readonly #folder = mkdtempSync(join(ROOT, 'build-cli-'))

  constructor() {
    compile(['lib'], this.#folder, 'lib')
    this.main = join(this.#folder, 'cli/main.js')
  }

  /** Runs `dp-moe ...args` to its end. */
  async run(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const { input, env, cwd, started, prefix = [], main = this.main } = options
    const [command, ...words] = [...prefix, process.execPath, main, ...args]
    const child = spawn(command!, words, {
      stdio: 'pipe',
      cwd,
      env: { ...process.env, _TAPJS_PROCESSINFO_EXCLUDE_: '.*', NODE_OPTIONS: '', ...env },
    })
    started?.(child)
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout.on('data', (piece: Buffer) => stdout.push(piece))
    child.stderr.on('data', (piece: Buffer) => stderr.push(piece))
    child.stdin.on('error', () => {})
    if (started === undefined || input !== undefined) child.stdin.end(input)
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    return { code, signal, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }
  }

  /** Runs a command line that is expected to fail, in this process: many of them cost little. */
  async fail(t: Test, args: readonly string[]): Promise<Finished> {
    const { runCommandLine } = (await import(join(dirname(this.main), 'program.js'))) as {
      runCommandLine: (args: readonly string[]) => Promise<number>
    }
    const written = t.capture(process.stderr, 'write', () => true)
    const code = await runCommandLine(args)
    const stderr = written()
      .map(({ args }) => args[0])
      .join('')
    written.restore()
    return { code, signal: null, stdout: '', stderr }
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true })
  }
}

/** Checks a failed command: nothing on standard output, one line on standard error that says why, and the exit code. */
export function refused(t: Test, { code, stdout, stderr }: Finished, expected: number, says: RegExp): void {
  t.equal(code, expected, stderr)
  t.equal(stdout, '')
  t.match(stderr, /^dp-moe: [^\n]+\n$/)
  t.match(stderr, says)
}
