import type { TextGenerationOptions, TextGenerator } from '../../models/generation/text-generator.js'
import { arrived } from '../arrived.js'
import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { group, integer, number, text } from '../flags.js'
import { hubFlags } from '../hub-flags.js'
import { untilInterrupted } from '../interrupt.js'
import { machineFlags } from '../machine-flags.js'
import { print, printResult } from '../output.js'

/** Most prompts that are continued together. */
const BATCH = 16

const SEE = '. See dp-moe generate --help'

interface Generation {
  readonly prompt: string
  readonly text: string
}

export const generateCommand = defineCommand({
  name: 'generate',
  summary: 'Continue texts with a language model',
  description:
    'Models: Mixtral, OLMoE, Qwen3-MoE, and Switch Transformer, which answers its prompt.\n\n' +
    'With --prompt, writes the text as it comes. Without, reads JSON lines from standard input and writes a line for each, in ' +
    'order: {"prompt":"...","text":"..."}. With --json, one object at the end: that of the prompt, or {"generations":[...]}.',
  operands: { model: 'Model folder, run folder, or owner/name on the hub' },
  flags: {
    ...hubFlags,
    ...group('Data', {
      prompt: text('<text>', 'The text to continue', 'JSON lines on standard input'),
      promptColumn: text('<key>', 'Key of the prompt in those lines', 'prompt'),
    }),
    ...group('Generation', {
      maxNewTokens: integer('<n>', 'Most tokens to write for a prompt', '64'),
      stop: text('<text>', 'End before this text, as at the end-of-text token of the model', 'none'),
      temperature: number('<t>', 'Divides the scores before a token is drawn; 0 takes the highest', '0'),
      topK: integer('<k>', 'Draw from the k highest scores only', 'all'),
      topP: number('<p>', 'Draw from the most probable tokens that have this probability together', 'all'),
      seed: integer('<n>', 'Of the drawing: the same seed, prompts and flags give the same texts', '0'),
    }),
    ...machineFlags,
  },
  examples: [
    'dp-moe generate allenai/OLMoE-1B-7B-0924 --prompt "Differential privacy is"',
    'dp-moe generate ./switch-base-8 --max-new-tokens 20 < prompts.jsonl > texts.jsonl',
    'dp-moe generate runs/chats --prompt "How do I reset it?"',
    'dp-moe generate ./olmoe --prompt "Once upon a time" --temperature 0.8 --top-p 0.9 --seed 1',
  ],
  async run({ json, debug: _, prompt, promptColumn = 'prompt', revision, ...values }, [model]) {
    const { device: name, precision, threads, ...options } = values
    if (prompt === undefined && process.stdin.isTTY) {
      throw usageError(`--prompt is needed where nothing is piped into standard input${SEE}`)
    }
    if (!options.temperature && (options.topK ?? options.topP) !== undefined) {
      throw usageError(`--top-k and --top-p are for --temperature above 0: at 0 nothing is drawn${SEE}`)
    }
    const [{ TextGenerator }, { checkGeneration }, { openDevice }, { findReleaseFolder }, { findModel }] =
      await Promise.all([
        import('../../models/generation/text-generator.js'),
        import('../../models/generation/generate.js'),
        import('../../train/open-device.js'),
        import('../../train/run-folder.js'),
        import('../hub-model.js'),
      ])
    checkGeneration(options)
    await untilInterrupted(async (signal) => {
      const found = await findModel(model!, { revision, signal })
      const folder = await findReleaseFolder(found)
      using device = openDevice({ device: name, precision, threads })
      const generator = await TextGenerator.open(device, folder)
      const settings = { ...options, signal }
      if (prompt !== undefined) return await answer(generator, prompt, settings, json)
      if (!json) return await answerStream(generator, promptColumn, settings, (all) => print(jsonLines(all)))
      const generations: Generation[] = []
      await answerStream(generator, promptColumn, settings, (more) => {
        generations.push(...more)
      })
      await print(jsonLines([{ generations }]))
    }, 'Stopping; interrupt again to stop at once.')
  },
})

/** One prompt: its text as it comes, or the whole of it with --json. */
async function answer(
  generator: TextGenerator,
  prompt: string,
  options: TextGenerationOptions,
  json: boolean | undefined,
): Promise<void> {
  if (json) {
    const [text] = await generator.generate([prompt], options)
    return await printResult(json, { prompt, text }, () => text!)
  }
  let begun = false
  try {
    for await (const { text } of generator.stream([prompt], options)) {
      begun = true
      await print(text)
    }
  } finally {
    if (begun) await print('\n')
  }
}

async function answerStream(
  generator: TextGenerator,
  promptColumn: string,
  options: TextGenerationOptions,
  receive: (generations: readonly Generation[]) => Promise<void> | void,
): Promise<void> {
  let firstPrompt = 0
  for await (const prompts of arrived(readPrompts(generator, promptColumn, options), BATCH)) {
    const texts = await generator.generate(prompts, { ...options, firstPrompt })
    await receive(prompts.map((prompt, index) => ({ prompt, text: texts[index]! })))
    firstPrompt += prompts.length
  }
}

/** The prompts of standard input; one that cannot be continued is an error that names its line. */
async function* readPrompts(
  generator: TextGenerator,
  promptColumn: string,
  { maxNewTokens, signal }: TextGenerationOptions,
): AsyncGenerator<string> {
  const { streamExamples } = await import('../../data/index.js')
  const { DpMoeError } = await import('../../errors.js')
  const input = { name: 'standard input', stream: process.stdin }
  signal?.addEventListener('abort', () => process.stdin.destroy(signal.reason as Error))
  for await (const { text, line } of streamExamples(input, { text: promptColumn, format: 'jsonl' })) {
    try {
      generator.encode(text, maxNewTokens)
    } catch (error) {
      if (!(error instanceof DpMoeError && error.code === 'INVALID_ARGUMENT')) throw error
      throw new DpMoeError('DATA_FORMAT', `${input.name}:${line}: ${error.message}`, { cause: error })
    }
    yield text
  }
}

function jsonLines(values: readonly object[]): string {
  return values.map((value) => `${JSON.stringify(value)}\n`).join('')
}
