import { type Command, Option } from 'commander'
import { OutOfRangeError } from '../errors.js'
import { type Flag, type Flags, flagName, group, text, toggle, type Values } from './flags.js'

/** One subcommand: its flags and what it does with their values. */
export interface CommandDefinition<F extends Flags = Flags> {
  readonly name: string
  readonly summary: string
  /** More for the command's own help. */
  readonly description?: string
  /** Positional arguments, all needed: name and help. */
  readonly operands?: Readonly<Record<string, string>>
  readonly flags: F
  /** Lines for the end of the help. */
  readonly examples: readonly string[]
  run(values: Values<F> & GeneralValues, operands: readonly string[]): Promise<void>
}

const resultFlags = group('General', {
  json: toggle('Print exactly one JSON object on standard output'),
})

const generalFlags = group('General', {
  config: text('<file.yaml>', 'Read flags from a YAML file: keys are flag names; flags given here win'),
  debug: toggle('Show stack traces'),
})

export interface GeneralValues {
  readonly json?: boolean
  readonly debug?: boolean
}

/** Keeps the type of a definition's flags. */
export function defineCommand<F extends Flags>(definition: CommandDefinition<F>): CommandDefinition<F> {
  return definition
}

/** Adds a subcommand to the program. */
export function addCommand<F extends Flags>(program: Command, definition: CommandDefinition<F>): void {
  const { name, summary, description, operands = {}, examples } = definition
  const flags: Flags = { ...definition.flags, ...resultFlags }
  const command = program
    .command(name)
    .summary(summary)
    .description(description === undefined ? summary : `${summary}.\n\n${description}`)
    .optionsGroup('General:')
    .helpOption('-h, --help', 'Show this help')
    .addHelpText('after', `\nExamples:\n${examples.map((line) => `  ${line}`).join('\n')}`)
  for (const [operand, help] of Object.entries(operands)) command.argument(`<${operand}>`, help)
  for (const [flag, facts] of Object.entries({ ...flags, ...generalFlags })) command.addOption(optionOf(flag, facts))
  command.action(async () => {
    const { config, debug, ...given } = command.opts<Record<string, unknown> & { config?: string; debug?: boolean }>()
    const { readValues } = await import('./values.js')
    const values = await readValues(flags, given, config, name)
    try {
      await definition.run({ ...values, debug: debug ?? false } as Values<F> & GeneralValues, command.args)
    } catch (error) {
      throw error instanceof OutOfRangeError ? inFlagNames(error, flags) : error
    }
  })
}

function optionOf(name: string, flag: Flag<unknown>): Option {
  const help = flag.fallback === undefined ? flag.help : `${flag.help} (default: ${flag.fallback})`
  const option = new Option(`${flagName(name)} ${flag.placeholder ?? ''}`.trim(), help).helpGroup(
    `${flag.group ?? 'Options'}:`,
  )
  if (flag.kind !== 'settings') return option
  return option.argParser((given: string, earlier: string[] | undefined) => [...(earlier ?? []), given])
}

/** Libraries name a parameter (maxGradNorm); who typed a flag is told its name (--max-grad-norm). */
function inFlagNames(error: OutOfRangeError, flags: Flags): OutOfRangeError {
  error.message = error.message.replace(/ for (\w+), got /, (whole, name: string) =>
    Object.hasOwn(flags, name) ? ` for ${flagName(name)}, got ` : whole,
  )
  return error
}
