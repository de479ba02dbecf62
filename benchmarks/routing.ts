import { Tape } from '../lib/autograd/tape.js'
import { encodeLabels, LabelSet, readExamples } from '../lib/data/index.js'
import { Device } from '../lib/engine/index.js'
import { MixtureClassifier } from '../lib/models/mixture-classifier.js'
import { fromPretrained } from '../lib/models/pretrained.js'
import { Telemetry } from '../lib/nn/telemetry.js'
import { microBatches } from '../lib/train/batches.js'
import { encodeTexts } from '../lib/train/classification-task.js'
import { evaluateClassifier } from '../lib/train/evaluate.js'

/**
 * Whether the experts of a trained mixture classifier matter, on public data.
 *
 *     node --import tsx benchmarks/routing.ts [RELEASE] [DATA]
 *
 * Prints a line of JSON: each expert's share of the words times the number of experts, accuracy as trained, and accuracy
 * when every word goes to the next expert instead of its own.
 */
const [release = 'runs/demo/private-run/release', file = 'runs/demo/data/validation.jsonl'] = process.argv.slice(2)
const device = Device.open('cpu')
const { model, labels, tokenizer, bag } = await fromPretrained(device, release)
if (!(model instanceof MixtureClassifier)) throw new Error(`${release} holds no mixture classifier`)
const { config } = model
const examples = await readExamples(file, { text: 'text', label: 'label' })
const classes = encodeLabels(examples, new LabelSet(labels), file)
const data = await encodeTexts({ texts: examples.map(({ text }) => text), classes }, tokenizer, bag)

const telemetry = new Telemetry(device)
const units = Int32Array.from({ length: data.length }, (_, unit) => unit)
for (const microBatch of microBatches(device, data, units, 32768)) {
  device.scope(() => model.logits(microBatch(), { tape: new Tape(device), training: false, telemetry }))
}
const [shares] = Object.values(await telemetry.takeExpertLoads())
const relative = shares!.map((share) => share * shares!.length).sort((a, b) => a - b)

const trained = await evaluateClassifier(device, model, data)
const { router } = model.experts
const rows = (await router.weight.tensor.data()) as Float32Array
router.weight.tensor.write(Float32Array.from(rows, (_, i) => rows[(i + config.hiddenSize) % rows.length]!))
const rotated = await evaluateClassifier(device, model, data)

console.log(
  JSON.stringify({
    what: 'use of the experts',
    experts: config.numExperts,
    smallestLoad: relative[0],
    largestLoad: relative.at(-1),
    accuracy: trained.accuracy,
    accuracyOfNextExpert: rotated.accuracy,
  }),
)
device.close()
