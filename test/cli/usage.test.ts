import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { version } from '../../lib/version.js'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-cli-'))
const file = (name: string) => join(folder, name)
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const train = ['train', '--train', 'x.jsonl', '--output', 'run']
const strict = [...train, '--target-epsilon', '3', '--relation', 'add-or-remove-one']
const constants = ['--sample-rate', '0.1', '--steps', '10', '--expected-batch-size', '5', '--target-delta', '1e-5']

const WRONG_FLAGS: readonly (readonly [string, readonly string[], RegExp])[] = [
  ['no command', [], /expected a command \(train, eval, predict, generate, convert, merge, account, build, doctor\)/],
  ['unknown command', ['trian'], /unknown command 'trian'.*train/],
  ['unknown flag', [...train, '--epoch', '3'], /unknown option '--epoch'.*--epochs.*dp-moe train --help/],
  [
    'the end of a flag',
    [...train, '--epsilon', '3'],
    /unknown option '--epsilon' \(Did you mean --target-epsilon\?\)\. See/,
  ],
  ['flag without its value', ['train', '--train'], /--train <file>' argument missing/],
  ['too many operands', ['eval', 'a', 'b', '--data', 'x'], /too many arguments/],
  ['operand missing', ['eval', '--data', 'x'], /missing required argument 'dir'/],
  ['no training file', ['train', '--output', 'run', '--target-epsilon', '3'], /--train \(or --dataset\) is needed/],
  ['no output', ['train', '--train', 'x.jsonl', '--target-epsilon', '3'], /--output is needed/],
  ['no budget', train, /--target-epsilon.*is needed/],
  ['no data to evaluate', ['eval', 'run'], /--data \(or --dataset\) is needed/],
  ['no folder to convert to', ['convert', 'model'], /--output is needed/],
  [
    'experts without upcycling',
    ['convert', 'model', '--output', 'x', '--num-experts', '4'],
    /--num-experts is for --upcycle/,
  ],
  [
    'a revision of a folder',
    ['convert', './model', '--output', 'x', '--revision', 'v1'],
    /--revision is for models on the hub/,
  ],
  ['an empty prompt', ['generate', 'model', '--prompt', ''], /--prompt: expected a text that is not empty/],
  ['drawing without a temperature', ['generate', 'model', '--prompt', 'a', '--top-k', '3'], /--temperature above 0/],
  ['not a number', [...train, '--target-epsilon', 'three'], /--target-epsilon: expected a number, got 'three'/],
  ['hexadecimal', [...train, '--target-epsilon', '0x3'], /--target-epsilon: expected a number, got '0x3'/],
  ['too large for a number', [...train, '--target-epsilon', '1e999'], /--target-epsilon: expected a number, got/],
  ['not a whole number', [...train, '--steps', '1.5'], /--steps: expected a whole number, got '1.5'/],
  ['no such choice', [...train, '--relation', 'add'], /--relation: expected one of zero-out, .*, got 'add'/],
  ['a setting without a value', [...train, '--model', 'numExperts='], /--model: expected name=value/],
  ['an empty text', [...train, '--text', ''], /--text: expected a text that is not empty/],
  [
    'private and not',
    [...train, '--non-private', '--target-epsilon', '3'],
    /--target-epsilon cannot be given with --non-private/,
  ],
  [
    'budget and noise',
    [...train, '--noise-multiplier', '1', '--target-epsilon', '3'],
    /--noise-multiplier cannot be given/,
  ],
  [
    'steps and epochs',
    [...train, '--target-epsilon', '3', '--steps', '3', '--epochs', '3'],
    /--steps cannot be given with --epochs/,
  ],
  [
    'resume and overwrite',
    [...train, '--target-epsilon', '3', '--resume', '--overwrite'],
    /--overwrite cannot be given/,
  ],
  [
    'seed and key',
    [...train, '--target-epsilon', '3', '--seed', '1', '--key-file', 'k'],
    /--key-file cannot be given with --seed/,
  ],
  [
    'secret N: epochs',
    [...strict, ...constants, '--epochs', '3'],
    /--epochs cannot be given with.*add-or-remove-one.*secret/,
  ],
  ...constants.flatMap((name, i) =>
    name.startsWith('--')
      ? [[`secret N: no ${name}`, [...strict, ...constants.toSpliced(i, 2)], new RegExp(`${name} is needed`)] as const]
      : [],
  ),
]

t.test('flags that are wrong in themselves: one line, exit code 2', async (t) => {
  for (const [name, args, says] of WRONG_FLAGS) {
    await t.test(name, async (t) => refused(t, await cli.fail(t, args), 2, says))
  }
  await t.test('in a process of its own', async (t) =>
    refused(t, await cli.run(['train', '--epoch', '3']), 2, /--epochs/),
  )
})

t.test('help and version go to standard output, exit code 0', async (t) => {
  const help = await cli.run(['--help'])
  t.match(help, { code: 0, stderr: '' })
  for (const command of ['train', 'eval', 'predict', 'generate', 'convert', 'merge', 'account', 'build', 'doctor']) {
    t.match(help.stdout, new RegExp(`^  ${command} `, 'm'))
    const own = await cli.run([command, '--help'])
    t.match(own, { code: 0, stderr: '' })
    for (const flag of ['--json', '--config', '--debug', '--help', 'Examples:']) t.match(own.stdout, flag)
  }
  t.same(await cli.run(['--version']), { code: 0, signal: null, stdout: `${version}\n`, stderr: '' })
})

t.test('the help of train says what every flag falls back on, under headings', async (t) => {
  const { stdout } = await cli.run(['train', '--help'])
  for (const heading of ['Data:', 'Result:', 'Privacy:', 'Training:', 'Machine:', 'General:']) {
    t.match(stdout, new RegExp(`^${heading}$`, 'm'))
  }
  t.match(stdout, /--max-length <tokens> .*?\(default:\s+1024, with\s+attention\s+256\)/s)
  t.notMatch(stdout, /^Options:$/m, 'no flag without a heading')
})

t.test('works through a symbolic link, as npx makes one', async (t) => {
  symlinkSync(cli.main, file('dp-moe'))
  t.equal(spawnSync(process.execPath, [file('dp-moe'), '--version'], { encoding: 'utf8' }).stdout, `${version}\n`)
  t.match(readFileSync(cli.main, 'utf8'), /^#!\/usr\/bin\/env node\n/)
})

t.test('--debug shows where the failure came from', async (t) => {
  const { code, stderr } = await cli.run([...train, '--debug'])
  t.equal(code, 2)
  t.match(stderr, /--target-epsilon.*is needed.*\n.*\bat /s)
})

t.test('--help starts without what only commands need', async (t) => {
  const script = `import { runCommandLine } from ${JSON.stringify(pathToFileURL(join(cli.main, '../program.js')).href)}
    await runCommandLine(['train', '--help'])`
  writeFileSync(file('loads.mjs'), script)
  const { stderr } = spawnSync(process.execPath, [file('loads.mjs')], {
    encoding: 'utf8',
    env: { ...process.env, NODE_DEBUG: 'esm', NODE_OPTIONS: '' },
  })
  t.match(stderr, /commander\/esm\.mjs/)
  t.notMatch(stderr, /node_modules\/(zod|yaml|cli-progress)\/|\/engine\/device\.js|\/train\/train\.js/)
})
