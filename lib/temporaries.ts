import { createHash, randomBytes } from 'node:crypto'
import { readdir, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'

// Names of what is half written: .NAME.HOST-PROCESS-RANDOM.dp-moe-tmp, and .NAME.HOST-PROCESS-RANDOM.old.dp-moe-tmp of a folder that
// was whole and had NAME before. HOST is a hash, so that no name of a machine is written.

const SUFFIX = '.dp-moe-tmp'
const OLD = '.old'

/** Half written, or whole and replaced. */
export type TemporaryKind = 'new' | 'old'

/** Nothing of another machine is taken for left over until nothing was written into it for this long, in ms. */
const LULL = 24 * 60 * 60 * 1000

/** How far the clocks of a file system and of this process may be apart, in ms. */
const CLOCK_SLACK = 60 * 1000

const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

/** A name beside `path` that tells who made it: {@link removeTemporaries} and {@link removeLeftovers} recognise it. */
export function temporaryName(path: string, kind: TemporaryKind = 'new'): string {
  const maker = `${host}-${process.pid}-${randomBytes(6).toString('hex')}`
  return join(dirname(path), `.${basename(path)}.${maker}${kind === 'old' ? OLD : ''}${SUFFIX}`)
}

/** Removes what a killed process left half written in a folder. Call it only while no other process writes there. */
export async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith('.') && name.endsWith(SUFFIX)) await rm(join(folder, name), { recursive: true })
  }
}

/**
 * Removes what processes that are gone left of one kind when they wrote `path`. Others may be writing it at the same time: a process of
 * this machine is gone when it runs no more, one of another machine when nothing was written for a day. What cannot be removed is left.
 */
export async function removeLeftovers(path: string, kind: TemporaryKind): Promise<void> {
  const folder = dirname(path)
  const start = `.${basename(path)}.`
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(start)) continue
    const made = /^([0-9a-f]{8})-(\d+)-[0-9a-f]{12}(\.old)?\.dp-moe-tmp$/.exec(name.slice(start.length))
    if (!made || (made[3] === OLD) !== (kind === 'old')) continue
    const place = join(folder, name)
    if (await isGone(made[1]!, Number(made[2]), place))
      await rm(place, { recursive: true, force: true }).catch(() => {})
  }
}

async function isGone(madeOn: string, pid: number, place: string): Promise<boolean> {
  if (madeOn !== host) return (await lastWrite(place)) < Date.now() - LULL
  if (pid !== process.pid) return !isRunning(pid)
  // A container gives its processes the same few numbers each time.
  return (await lastWrite(place)) < Date.now() - process.uptime() * 1000 - CLOCK_SLACK
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ESRCH')
  }
}

/** When something was last written into a folder, in ms since 1970; now for what cannot be read. */
async function lastWrite(folder: string): Promise<number> {
  try {
    const names = await readdir(folder)
    const times = [folder, ...names.map((name) => join(folder, name))].map(async (path) => (await stat(path)).mtimeMs)
    return Math.max(...(await Promise.all(times)))
  } catch {
    return Date.now()
  }
}
