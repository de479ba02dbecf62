import { arrived } from '../arrived.js'
import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { group, text, toggle } from '../flags.js'
import { machineFlags } from '../machine-flags.js'
import { print } from '../output.js'

/** Most texts that are classified together. */
const BATCH = 256

export const predictCommand = defineCommand({
  name: 'predict',
  summary: 'Classify texts with a trained model',
  description:
    'Without --text, reads JSON lines from standard input and writes a line for each, in order, as they come: ' +
    '{"label":"spam","probabilities":{"ham":0.1,"spam":0.9}}. With --json, one object {"predictions":[...]} at the end. ' +
    'With --logits, {"label":"spam","logits":{"ham":-1.1,"spam":1.1}}: the scores as they leave the model, to compare with ' +
    'other libraries.',
  operands: { dir: 'Run folder, or a release folder' },
  flags: {
    ...group('Data', {
      text: text('<text>', 'The text to classify', 'JSON lines on standard input'),
      textColumn: text('<key>', 'Key of the text in those lines', 'text'),
    }),
    ...group('Result', {
      logits: toggle('Write logits in place of probabilities'),
    }),
    ...machineFlags,
  },
  examples: [
    'dp-moe predict runs/mails --text "You have won a prize"',
    'dp-moe predict runs/mails/release < mails.jsonl > predictions.jsonl',
  ],
  async run({ json, text, textColumn = 'text', logits, device, precision, threads }, [folder]) {
    if (text === undefined && process.stdin.isTTY) {
      throw usageError('--text is needed where nothing is piped into standard input. See dp-moe predict --help')
    }
    const { Predictor } = await import('../../train/index.js')
    using predictor = await Predictor.open(folder!, { device, precision, threads })
    const classify = (texts: readonly string[]) => (logits ? predictor.logits(texts) : predictor.predict(texts))
    if (text !== undefined) return await print(jsonLines(await classify([text])))
    if (!json) return await classifyStream(classify, textColumn, (predictions) => print(jsonLines(predictions)))
    const all: object[] = []
    await classifyStream(classify, textColumn, (predictions) => {
      for (const prediction of predictions) all.push(prediction)
    })
    await print(jsonLines([{ predictions: all }]))
  },
})

async function classifyStream(
  classify: (texts: readonly string[]) => Promise<readonly object[]>,
  textColumn: string,
  receive: (predictions: readonly object[]) => Promise<void> | void,
): Promise<void> {
  const { streamExamples } = await import('../../data/index.js')
  const input = { name: 'standard input', stream: process.stdin }
  for await (const examples of arrived(streamExamples(input, { text: textColumn, format: 'jsonl' }), BATCH)) {
    await receive(await classify(examples.map(({ text }) => text)))
  }
}

function jsonLines(values: readonly object[]): string {
  return values.map((value) => `${JSON.stringify(value)}\n`).join('')
}
