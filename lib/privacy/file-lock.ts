import { readFileSync, readlinkSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import lockfile, { type LockOptions } from 'proper-lockfile'
import { DpMoeError } from '../errors.js'
import { replaceFile, systemErrorCode, withFileErrors } from '../files.js'

/** A lock whose owner stopped refreshing it for this long is free, whoever the owner was. */
const STALE_MILLISECONDS = 10_000

/**
 * From its import on, the lock library ends the process on signals that nobody else listens to. A write beyond the limit on
 * file sizes (`ulimit -f`) raises one, whoever writes, and must fail as a full disk does instead.
 */
if (process.platform !== 'win32') process.on('SIGXFSZ', () => {})

/** A process on this machine, told apart from a later one with the same id. */
interface ProcessIdentity {
  readonly host: string
  readonly boot: string
  readonly namespace: string
  readonly pid: number
  readonly started: string
}

/** A lock that is held. */
export interface FileLock {
  /** Set once another process took the lock, which happens only to a process that was stopped for a long time. */
  readonly lost: DpMoeError | undefined
  release(): Promise<void>
}

/**
 * Takes the lock of an existing file against every other process, and within this one.
 *
 * The lock is `PATH.lock`, refreshed while it is held. A file beside it names the owner, so that the lock of a killed
 * process is free at once and not only after it went stale.
 *
 * @throws DpMoeError FILE_ACCESS when another process holds it
 */
export async function lockFile(path: string): Promise<FileLock> {
  return withFileErrors('write', path, async () => {
    // The guard makes "the owner is dead, write my name, take its lock" one step among processes that all wait here.
    const releaseGuard = await acquire(path, undefined, `${path}.guard`, {
      realpath: false,
      stale: 2000,
      retries: { retries: 60, factor: 1, minTimeout: 50, maxTimeout: 50 },
    })
    try {
      return await takeLock(path)
    } finally {
      await releaseGuard()
    }
  })
}

async function takeLock(path: string): Promise<FileLock> {
  const ownerPath = `${path}.lock-owner`
  const owner = await readOwner(ownerPath)
  if (owner !== undefined && isDead(owner)) await rm(`${path}.lock`, { recursive: true, force: true })
  if (await lockfile.check(path, { stale: STALE_MILLISECONDS })) throw heldError(path, owner)
  // The name comes before the lock and goes after it, so that a lock never stands without its owner's name.
  await replaceFile(ownerPath, `${JSON.stringify(ownIdentity())}\n`, { mode: 0o600 })
  let lost: DpMoeError | undefined
  const release = await acquire(path, owner, path, {
    stale: STALE_MILLISECONDS,
    onCompromised: () => {
      lost = new DpMoeError(
        'FILE_ACCESS',
        `The lock of ${path} was taken by another process while this one stood still. Stop one of the two, then resume`,
      )
    },
  })
  return {
    get lost() {
      return lost
    },
    async release() {
      if (lost !== undefined) return
      await release()
      // Not under the guard, which takes a place on a disk that may be full; another process may have the lock by now.
      const now = await readOwner(ownerPath)
      if (now?.pid === process.pid && now.started === startOf(process.pid)) await rm(ownerPath, { force: true })
    },
  }
}

async function acquire(
  path: string,
  owner: ProcessIdentity | undefined,
  target: string,
  options: LockOptions,
): Promise<() => Promise<void>> {
  try {
    return await lockfile.lock(target, options)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ELOCKED') throw heldError(path, owner)
    throw error
  }
}

function heldError(path: string, owner: ProcessIdentity | undefined): DpMoeError {
  const who = owner === undefined ? 'Another process' : `Process ${owner.pid} on ${owner.host}`
  return new DpMoeError(
    'FILE_ACCESS',
    `${who} is writing ${path}. Wait until it ends; if it was killed on another machine, or was a worker ` +
      `thread, try again in ${STALE_MILLISECONDS / 1000} seconds`,
  )
}

async function readOwner(path: string): Promise<ProcessIdentity | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as ProcessIdentity
  } catch (error) {
    if (error instanceof SyntaxError || systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Whether the owner is certainly gone; false where this machine cannot tell (another host, another container). */
function isDead(owner: ProcessIdentity): boolean {
  const own = ownIdentity()
  if (owner.host !== own.host || owner.boot !== own.boot || owner.namespace !== own.namespace) return false
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    return systemErrorCode(error) === 'ESRCH'
  }
  return startOf(owner.pid) !== owner.started
}

function ownIdentity(): ProcessIdentity {
  return {
    host: hostname(),
    boot: orEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()),
    namespace: orEmpty(() => readlinkSync('/proc/self/ns/pid')),
    pid: process.pid,
    started: startOf(process.pid),
  }
}

/** Clock ticks from boot to the start of a process, field 22 of its stat; empty where there is no /proc. */
function startOf(pid: number): string {
  return orEmpty(() => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[19] ?? '')
}

function orEmpty(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}
