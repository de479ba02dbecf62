import { Command, CommanderError } from 'commander'
import { version } from '../version.js'
import { addCommand } from './command.js'
import { account } from './commands/account.js'
import { build } from './commands/build.js'
import { convertCommand } from './commands/convert.js'
import { doctor } from './commands/doctor.js'
import { evaluateCommand } from './commands/eval.js'
import { generateCommand } from './commands/generate.js'
import { mergeCommand } from './commands/merge.js'
import { predictCommand } from './commands/predict.js'
import { trainCommand } from './commands/train.js'
import { exitCodeOf, failureLine, usageError } from './failure.js'
import { warn } from './output.js'

/** Runs a command line (without `node` and the script) and returns the exit code of the process. Never throws. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  let program: Command | undefined
  try {
    program = makeProgram()
    if (args.length === 0) {
      const names = program.commands.map((command) => command.name())
      throw usageError(`expected a command (${names.join(', ')}). See dp-moe --help`)
    }
    await program.parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0
    const failure = error instanceof CommanderError ? flagError(error, args, program) : error
    warn(failureLine(failure, args.includes('--debug')))
    return exitCodeOf(failure)
  }
}

function makeProgram(): Command {
  const program = new Command('dp-moe')
    .description('Train Mixture-of-Experts text classifiers and language models with differential privacy.')
    .version(version, '-V, --version', 'Show the version')
    .helpOption('-h, --help', 'Show this help')
    .helpCommand('help [command]', 'Show the help of a command')
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText('after', '\nEvery command has its own help: dp-moe train --help')
  addCommand(program, trainCommand)
  addCommand(program, evaluateCommand)
  addCommand(program, predictCommand)
  addCommand(program, generateCommand)
  addCommand(program, convertCommand)
  addCommand(program, mergeCommand)
  addCommand(program, account)
  addCommand(program, build)
  addCommand(program, doctor)
  return program
}

/** What commander says about flags, with where to look them up. */
function flagError(error: CommanderError, args: readonly string[], program: Command | undefined): Error {
  const command = args.find((argument) => !argument.startsWith('-'))
  const flags = program?.commands.find((one) => one.name() === command)?.options.map(({ long }) => long ?? '') ?? []
  const message = withLongerFlag(error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' '), flags)
  const help = command === undefined || error.code === 'commander.unknownCommand' ? '' : ` ${command}`
  const remedy = message.endsWith(')') ? '.' : message.endsWith('.') ? '' : '.'
  return usageError(`${message}${remedy} See dp-moe${help} --help`)
}

/** Who writes the end of a flag (--epsilon) means it, whatever is spelled alike (--version). */
function withLongerFlag(message: string, flags: readonly string[]): string {
  const given = /^unknown option '--([^'=]+).*?'/.exec(message)
  const [meant, ...others] = given ? flags.filter((flag) => flag.endsWith(`-${given[1]}`)) : []
  return meant === undefined || others.length > 0 ? message : `${given![0]} (Did you mean ${meant}?)`
}
