import { join } from 'node:path'
import { replaceFile } from '../../lib/files.js'
import { runDemo, trainWithView } from '../run-demo.js'
import { prepareMails } from './prepare.js'

/**
 * The main job end to end: a spam filter trained on real mail, with privacy and without. The mails are public, so the
 * accuracies may be shown.
 */
const folder = join('runs', 'demo')
await runDemo(async (signal) => {
  const started = performance.now()

  const mails = await prepareMails(join(folder, 'data'))
  console.error(`${mails.training} mails to train on, ${mails.validation} to validate with\n`)

  const data = {
    train: mails.trainingFile,
    validation: mails.validationFile,
    labels: ['ham', 'spam'],
    overwrite: true,
    signal,
  }
  const withPrivacy = await trainWithView('private', {
    ...data,
    output: join(folder, 'private-run'),
    targetEpsilon: 3,
    targetDelta: 1e-5,
  })
  const without = await trainWithView('non-private', {
    ...data,
    output: join(folder, 'non-private-run'),
    nonPrivate: true,
  })

  const summary = {
    private: { accuracy: withPrivacy.validation!.accuracy, epsilon: withPrivacy.epsilon, delta: withPrivacy.delta },
    nonPrivate: { accuracy: without.validation!.accuracy },
    majority: mails.majority,
    examples: mails.training,
    seconds: (performance.now() - started) / 1000,
  }
  await replaceFile(join(folder, 'summary.json'), `${JSON.stringify(summary)}\n`)

  const percent = (value: number) => `${(100 * value).toFixed(1)} %`
  console.log(`
                 accuracy   epsilon   seconds
private          ${percent(summary.private.accuracy)}     ${withPrivacy.epsilon!.toFixed(2)}      ${withPrivacy.seconds.toFixed(0)}
without privacy  ${percent(summary.nonPrivate.accuracy)}     -         ${without.seconds.toFixed(0)}
majority class   ${percent(summary.majority)}

${summary.examples} mails, delta ${summary.private.delta}, ${summary.seconds.toFixed(0)} seconds in all
model and certificate: ${join(folder, 'private-run', 'release')}`)
}, 'Stopping after this step; interrupt again to stop at once.')
