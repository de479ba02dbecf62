import { DpMoeError } from '../errors.js'

/** A command line (or its configuration file) that is wrong in itself, whatever the data: exit code 2. */
export function usageError(message: string): DpMoeError {
  return new DpMoeError('USAGE', message)
}

/**
 * The exit code of a failed command.
 *
 * | error | code |
 * |---|---|
 * | the flags are wrong in themselves (USAGE) | 2 |
 * | interrupted (ABORTED) | 130 |
 * | anything else: bad data, values out of range, a full disk, ... | 1 |
 */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof DpMoeError)) return 1
  return error.code === 'USAGE' ? 2 : error.code === 'ABORTED' ? 130 : 1
}

/** What a failed command prints: one line, or everything known with `--debug`. */
export function failureLine(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) return `dp-moe: ${oneLine(String(error))}`
  if (debug) return `dp-moe: ${details(error)}`
  if (isExpected(error)) return `dp-moe: ${oneLine(error.message)}`
  return `dp-moe: unexpected failure: ${oneLine(error.message)}. Run again with --debug and report what it shows`
}

/** Errors that say what to do: our own, and those of the operating system, which name the file and the reason. */
function isExpected(error: Error): boolean {
  return 'code' in error && typeof error.code === 'string' && !error.code.startsWith('ERR_')
}

/** Data files are quoted in messages: what would break the line or drive a terminal becomes a space. */
function oneLine(message: string): string {
  return message.replace(/[\s\p{Cc}]+/gu, ' ').trim()
}

function details(error: Error): string {
  const stack = error.stack ?? String(error)
  return error.cause instanceof Error ? `${stack}\ncaused by: ${details(error.cause)}` : stack
}
