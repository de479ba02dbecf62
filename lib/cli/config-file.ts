import { readFile } from 'node:fs/promises'
import { type Document, isMap, isScalar, LineCounter, parseDocument } from 'yaml'
import { DpMoeError } from '../errors.js'
import { withFileErrors } from '../files.js'
import { usageError } from './failure.js'
import { camelCase, type Flags, flagName } from './flags.js'

/** One key of a configuration file. */
export interface ConfigEntry {
  readonly value: unknown
  /** Where errors say it came from: `run.yaml:3: epochs`. */
  readonly place: string
}

/**
 * Reads the values of flags from a YAML file: a map whose keys are flag names, in camel case or with dashes.
 *
 * @throws DpMoeError USAGE for a key that is no flag of the command, or given twice; DATA_FORMAT when it is not such a map;
 *   FILE_NOT_FOUND, FILE_ACCESS
 */
export async function readConfigFile(path: string, flags: Flags, command: string): Promise<Map<string, ConfigEntry>> {
  const source = await withFileErrors('read', path, () => readFile(path, 'utf8'))
  const lines = new LineCounter()
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false })
  const [error] = document.errors
  if (error) throw badFile(path, lines.linePos(error.pos[0]).line, `it is not YAML: ${error.message}`)
  const entries = new Map<string, ConfigEntry>()
  if (document.contents === null) return entries
  if (!isMap(document.contents)) throw badFile(path, 1, 'expected lines such as "epochs: 10"')
  const values = plainValues(path, document)
  for (const { key } of document.contents.items) {
    const written = isScalar(key) ? String(key.value) : String(key)
    const line = lines.linePos((isScalar(key) ? key.range?.[0] : undefined) ?? 0).line
    const place = `${path}:${line}: ${written}`
    const name = camelCase(written)
    if (!Object.hasOwn(flags, name)) {
      throw usageError(`${place}: unknown key; the keys are the flags of dp-moe ${command}: ${known(flags)}`)
    }
    if (entries.has(name)) throw usageError(`${place}: the key is given twice (as ${entries.get(name)!.place})`)
    entries.set(name, { value: values[written], place })
  }
  return entries
}

function plainValues(path: string, document: Document): Record<string, unknown> {
  try {
    return document.toJS({ maxAliasCount: 100 }) as Record<string, unknown>
  } catch (error) {
    throw badFile(path, 1, `its aliases cannot be resolved: ${error instanceof Error ? error.message : error}`)
  }
}

function known(flags: Flags): string {
  return Object.keys(flags)
    .map((name) => flagName(name).slice(2))
    .join(', ')
}

function badFile(path: string, line: number, what: string): DpMoeError {
  return new DpMoeError('DATA_FORMAT', `${path}:${line}: ${what}. Correct the file; its keys are flag names`)
}
