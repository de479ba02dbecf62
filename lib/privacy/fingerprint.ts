import { createHmac } from 'node:crypto'
import { readInPieces } from '../files.js'

/**
 * Fingerprint of a value, keyed with the run's secret: it tells whether two runs of one folder had the same
 * configuration, data or key, and without the secret nothing can be tested against it.
 *
 * @param value bytes, text, or plain data (the order of its names does not matter)
 * @returns HMAC-SHA-256, 64 hex digits
 */
export function fingerprint(secret: Uint8Array, value: unknown): string {
  const content = value instanceof Uint8Array || typeof value === 'string' ? value : canonicalJson(value)
  return createHmac('sha256', secret).update(content).digest('hex')
}

/** {@link fingerprint} of a file's bytes, read in pieces. */
export async function fingerprintFile(secret: Uint8Array, path: string): Promise<string> {
  const hmac = createHmac('sha256', secret)
  await readInPieces(path, (piece) => hmac.update(piece))
  return hmac.digest('hex')
}

function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_name, inner: unknown) => {
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}
