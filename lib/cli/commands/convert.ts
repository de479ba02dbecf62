import type { ConvertResult } from '../../models/convert.js'
import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { choice, flagName, group, integer, text, toggle } from '../flags.js'
import { hubFlags } from '../hub-flags.js'
import { untilInterrupted } from '../interrupt.js'
import { printResult, table, warn } from '../output.js'
import { WEIGHT_TYPES } from '../weight-types.js'

export const convertCommand = defineCommand({
  name: 'convert',
  summary: 'Write a pretrained model anew: upcycled, in another type, in other shards',
  description:
    'Reads and writes the Hugging Face layout: config.json, safetensors, tokenizer. Models: BERT, Mixtral, OLMoE, Qwen3-MoE, ' +
    'Switch Transformer.\n\n' +
    '--upcycle copies the feed-forward parts of a dense BERT into experts (sparse upcycling); the model computes what it ' +
    'did until it is trained.',
  operands: { model: 'Model folder, or owner/name on the hub' },
  flags: {
    ...hubFlags,
    ...group('Result', {
      output: text('<dir>', 'Model folder to make (needed)'),
      overwrite: toggle('Replace the model that the folder holds'),
      dtype: choice('<type>', ['float32', 'bfloat16', 'float16'], 'What weights are written as', 'float32'),
      maxShardBytes: integer('<bytes>', 'Most bytes of weights in a file', '5 GB'),
    }),
    ...group('Upcycling', {
      upcycle: toggle('Turn feed-forward parts into mixtures of experts (BERT)'),
      numExperts: integer('<n>', 'Experts of a mixture', '8'),
      expertsPerToken: integer('<k>', 'Experts that a token goes to', '1'),
      layers: choice('<layers>', ['every-second', 'all'], 'Which layers become mixtures', 'every-second'),
      seed: integer('<n>', 'Of the first weights of routers, and of a head that the model lacks', '0'),
    }),
  },
  examples: [
    'dp-moe convert sentence-transformers/all-MiniLM-L6-v2 --upcycle --num-experts 8 --output minilm-moe',
    'dp-moe convert allenai/OLMoE-1B-7B-0924 --dtype bfloat16 --output olmoe',
  ],
  async run({ json, debug: _, output, dtype = 'float32', revision, ...values }, [model]) {
    if (output === undefined) throw usageError('--output is needed. See dp-moe convert --help')
    const { upcycle: upcycled, numExperts, expertsPerToken, layers, ...options } = values
    const idle = Object.entries({ numExperts, expertsPerToken, layers }).find(([, value]) => value !== undefined)
    if (!upcycled && idle) throw usageError(`${flagName(idle[0])} is for --upcycle. See dp-moe convert --help`)
    const [{ Device }, { convertModel }, { findModel }] = await Promise.all([
      import('../../engine/device.js'),
      import('../../models/convert.js'),
      import('../hub-model.js'),
    ])
    const result = await untilInterrupted(async (signal) => {
      const folder = await findModel(model!, { revision, signal })
      using device = Device.open('cpu')
      return await convertModel(device, folder, output, {
        ...options,
        dtype: WEIGHT_TYPES[dtype],
        ...(upcycled && {
          upcycle: {
            numExperts: numExperts ?? 8,
            ...(expertsPerToken !== undefined && { expertsPerToken }),
            ...(layers && { layers }),
          },
        }),
        signal,
      })
    }, 'Stopping; nothing is written. Interrupt again to stop at once.')
    if (result.newTensors.length > 0) warn(newHead(result))
    await printResult(json, { output, ...result, dtype }, () =>
      table([
        ['model', output],
        ['type', `${result.modelType}, ${dtype}`],
        ['weights', String(result.parameters)],
      ]),
    )
  },
})

function newHead({ newTensors }: ConvertResult): string {
  return `warning: the model has no ${newTensors.join(', ')}: these have random first weights and want training`
}
