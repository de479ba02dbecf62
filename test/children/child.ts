import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { compile, ROOT } from '../support/compile.js'

/** Compiles the sources, and a script of this folder, into `folder`, so that it starts fast and needs no loader. */
export function compileChild(script: string, folder: string): string {
  compile(['lib', 'test/children', 'test/support'], folder)
  copyFileSync(join(ROOT, 'package.json'), join(folder, 'package.json'))
  symlinkSync(join(ROOT, 'build'), join(folder, 'build')) // where the compiled sources look for the addon
  return join(folder, 'test/children', script.replace(/ts$/, 'js'))
}

/** Starts a compiled script; it talks in lines on its standard output. `prefix` is a command to run it under. */
export function startChild(script: string, args: readonly string[], prefix: readonly string[] = []): ChildProcess {
  // tap gives every child a report to write at exit, through NODE_OPTIONS; a child on a full disk cannot write one.
  const [command, ...rest] = [...prefix, 'env', '-u', 'NODE_OPTIONS', process.execPath, script, ...args]
  return spawn(command!, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
}

/** Kills a child without warning `delay` milliseconds after a line of its output, and returns every line it had written. */
export async function killAfter(
  child: ChildProcess,
  delay: number,
  after: (line: string) => boolean = () => true,
): Promise<string[]> {
  const lines: string[] = []
  let timer: NodeJS.Timeout | undefined
  const reader = createInterface({ input: child.stdout! })
  reader.on('line', (line) => {
    if (after(line)) timer ??= setTimeout(() => child.kill('SIGKILL'), delay)
    lines.push(line)
  })
  await Promise.all([once(child, 'exit'), once(reader, 'close')])
  clearTimeout(timer)
  return lines
}

/** Runs a child to its end and returns every line it wrote. */
export async function linesOf(child: ChildProcess): Promise<string[]> {
  const lines: string[] = []
  const reader = createInterface({ input: child.stdout! })
  reader.on('line', (line) => lines.push(line))
  await Promise.all([once(child, 'exit'), once(reader, 'close')])
  return lines
}

/** Runs a child to its end and returns the JSON object of its last line. */
export async function resultOf(child: ChildProcess): Promise<unknown> {
  return JSON.parse((await linesOf(child)).at(-1) ?? 'null')
}

/** A command prefix that runs what follows with a file system of `bytes` bytes mounted at `folder`. */
export function smallDisk(folder: string, bytes: number): string[] {
  return mounted(folder, `size=${bytes}`)
}

/** {@link smallDisk} with tmpfs options: `size=16k` limits the bytes, `nr_inodes=16` the number of files. */
export function mounted(folder: string, options: string): string[] {
  const mount = `mount -t tmpfs -o ${options} tmpfs "$0" && exec "$@"`
  return ['unshare', '-rm', 'sh', '-c', mount, folder]
}

/** Whether this machine lets us mount that (root, or user namespaces). */
export function canMount(folder: string): boolean {
  const [command, ...args] = [...smallDisk(folder, 65536), 'true']
  return spawnSync(command!, args).status === 0
}
