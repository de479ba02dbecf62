import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { dialogues, modelFolder, writeLines } from '../train/support/language.js'
import { refused, TestCli } from './support/cli.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-language-'))
const file = (name: string) => join(folder, name)
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const decoder = modelFolder(folder, 'decoder', 'olmoe')
const encoderDecoder = modelFolder(folder, 'switch', 'switch')
const rows = dialogues(100)
const data = writeLines(file('dialogues.jsonl'), rows)
const flags = ['--train', data, '--steps', '4', '--expected-batch-size', '25', '--max-length', '24', '--threads', '1']
const columns = {
  'causal-lm': ['--prompt', 'question', '--completion', 'answer'],
  seq2seq: ['--source', 'question', '--target', 'answer'],
}
const oneObject = (stdout: string) => {
  t.equal(stdout.trimEnd().split('\n').length, 1)
  return JSON.parse(stdout)
}

for (const [task, model] of [
  ['causal-lm', decoder],
  ['seq2seq', encoderDecoder],
] as const) {
  const run = file(task)

  t.test(`${task}: train, eval and generate`, async (t) => {
    const args = ['train', '--task', task, '--model', model, ...columns[task], ...flags, '--validation', data]
    const trained = await cli.run([...args, '--target-epsilon', '8', '--trainable', 'lora', '--output', run, '--json'])
    t.equal(trained.code, 0, trained.stderr)
    const result = oneObject(trained.stdout)
    t.match(result, { private: true, examples: 100, steps: 4, delta: 0.01, validation: { examples: 100 } })
    t.match(trained.stderr, /model: pretrained (olmoe|switch_transformers), .*at most 24 tokens a text/)
    t.same(readdirSync(join(run, 'release')).sort(), [
      'certificate.json',
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    t.match(JSON.parse(readFileSync(join(run, 'release/certificate.json'), 'utf8')), {
      epsilon: result.epsilon,
      publicConstants: { task, examples: 100, maxLength: 24 },
    })

    const measured = await cli.run(['eval', run, '--data', data, ...columns[task], '--threads', '1', '--json'])
    t.equal(measured.code, 0, measured.stderr)
    const { validation } = result
    t.same(oneObject(measured.stdout), validation)
    t.same(Object.keys(validation), ['accuracy', 'loss', 'examples', 'tokens', 'perplexity'])
    const shown = await cli.run(['eval', run, '--data', data, ...columns[task], '--threads', '1'])
    t.match(shown.stdout, `perplexity      ${validation.perplexity.toFixed(3)}\n`)
    t.match(shown.stdout, new RegExp(`token accuracy  ${(100 * validation.accuracy).toFixed(2)} %\n`))
    t.match(shown.stdout, new RegExp(`examples        100, ${validation.tokens} tokens to predict\n`))

    const { question } = rows[0]!
    const answers = ['--max-new-tokens', '5', '--json', '--threads', '1']
    const generated = await cli.run(['generate', run, '--prompt', question, ...answers])
    t.equal(generated.code, 0, generated.stderr)
    t.match(oneObject(generated.stdout), { prompt: question, text: String })
    const release = await cli.run(['generate', join(run, 'release'), '--prompt', question, ...answers])
    t.same(release.stdout, generated.stdout, 'a run folder stands for its release')
  })

  t.test(`${task}: predict points to generate`, async (t) =>
    refused(t, await cli.fail(t, ['predict', run, '--text', 'a']), 1, /gives no classes; .*dp-moe generate/),
  )
}

t.test('a run from a file, shown to people', async (t) => {
  const args = ['train', '--config', file('run.yaml'), '--output', file('shown')]
  writeLines(file('run.yaml'), [
    { task: 'causal-lm', model: { pretrained: decoder }, train: data, validation: 0.3, text: 'answer', threads: 1 },
  ])
  const more = ['--non-private', '--steps', '2']
  const { code, stdout, stderr } = await cli.run([...args, ...more])
  t.equal(code, 0, stderr)
  t.match(stdout, /validation +perplexity \d+\.\d+, token accuracy \d+\.\d\d % on \d+ examples\n/)
})

t.test('flags that contradict each other, and data that do not fit', async (t) => {
  const causal = ['train', '--task', 'causal-lm', '--target-epsilon', '8', '--output', file('never'), ...flags]
  const from = ['--model', decoder, ...columns['causal-lm']]
  for (const [args, code, says] of [
    [['train', '--task', 'poetry', ...flags], 2, /--task.*classification, causal-lm, seq2seq/],
    [causal, 2, /--model is needed with --task causal-lm: a folder, or owner\/name on the hub/],
    [[...causal, ...from, '--labels', 'a,b'], 2, /--labels cannot be given with --task causal-lm/],
    [
      [...causal, ...from, '--label', 'answer'],
      2,
      /--label cannot be given with --task causal-lm, which reads --text, --prompt, --completion/,
    ],
    [[...causal, ...from, '--text', 'answer'], 2, /--prompt cannot be given with --text/],
    [
      [...causal, '--model', decoder],
      1,
      /dialogues\.jsonl:1: there is no column 'text'; .*'question', 'answer', 'user'/,
    ],
    [[...causal, '--model', encoderDecoder, ...columns['causal-lm']], 1, /expected mixtral, olmoe, qwen3_moe/],
    [[...causal, ...from, '--max-length', '5000'], 1, /for --max-length, got 5000/],
    [['eval', decoder, '--data', data], 1, /there is no column 'text'/],
    [['eval', decoder, '--data', data, '--label', 'answer'], 1, /label: not for causal-lm/],
    [['eval', encoderDecoder, '--data', data], 1, /there is no column 'source'/],
  ] as const) {
    await t.test(String(says), async (t) => refused(t, await cli.fail(t, args), code, says))
  }
})
