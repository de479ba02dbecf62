import { type ConfigEntry, readConfigFile } from './config-file.js'
import { usageError } from './failure.js'
import { type Flags, flagName, type Values } from './flags.js'
import { schemaOf } from './schema.js'

/**
 * The values of a command: those of its flags, and under them those of the configuration file.
 *
 * @throws DpMoeError USAGE naming the flag, or the file and key, that is not what was expected
 */
export async function readValues<F extends Flags>(
  flags: F,
  given: Readonly<Record<string, unknown>>,
  configFile: string | undefined,
  command: string,
): Promise<Values<F>> {
  const config: Map<string, ConfigEntry> =
    configFile === undefined ? new Map() : await readConfigFile(configFile, flags, command)
  const fromConfig = Object.fromEntries([...config].map(([name, { value }]) => [name, value]))
  const parsed = schemaOf(flags).safeParse({ ...fromConfig, ...given })
  if (parsed.success) return parsed.data as Values<F>
  const issue = parsed.error.issues[0]!
  const name = String(issue.path[0])
  const isFlag = Object.hasOwn(given, name)
  const value = isFlag ? given[name] : fromConfig[name]
  const place = isFlag ? flagName(name) : config.get(name)!.place
  throw usageError(`${place}: ${issue.message}, got ${shown(value)}`)
}

function shown(value: unknown): string {
  return typeof value === 'string' ? `'${value}'` : value === null ? 'nothing' : JSON.stringify(value)
}
