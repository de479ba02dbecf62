import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { splitByText } from '../../lib/data/index.js'
import { replaceFile, withFileErrors } from '../../lib/files.js'
import { type LoadMailsOptions, loadMails, type Mail } from './mails.js'

/** Share of the mails kept out of training. */
export const VALIDATION_FRACTION = 0.2

/** The two files of the spam example: JSON Lines with the columns `text` and `label`. */
export interface PreparedMails {
  trainingFile: string
  validationFile: string
  training: number
  validation: number
  /** Accuracy on the validation mails of always answering the training mails' most frequent label. */
  majority: number
}

/**
 * Parses the mails, splits them by the fixed public rule of `splitByText`, and writes `train.jsonl` and
 * `validation.jsonl` into a folder, which is made if need be. Files from an earlier call are replaced.
 */
export async function prepareMails(folder: string, options: LoadMailsOptions = {}): Promise<PreparedMails> {
  const mails = await loadMails(options)
  const split = splitByText(
    mails.map((mail) => mail.text),
    VALIDATION_FRACTION,
  )
  const training = Array.from(split.training, (index) => mails[index]!)
  const validation = Array.from(split.validation, (index) => mails[index]!)
  const trainingFile = join(folder, 'train.jsonl')
  const validationFile = join(folder, 'validation.jsonl')
  await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
  await replaceFile(trainingFile, jsonLines(training))
  await replaceFile(validationFile, jsonLines(validation))
  return {
    trainingFile,
    validationFile,
    training: training.length,
    validation: validation.length,
    majority: majorityAccuracy(training, validation),
  }
}

function jsonLines(mails: readonly Mail[]): string {
  return mails.map((mail) => `${JSON.stringify(mail)}\n`).join('')
}

/** Accuracy on `validation` of the label that is most frequent in `training`. */
export function majorityAccuracy(training: readonly Mail[], validation: readonly Mail[]): number {
  const spam = training.filter((mail) => mail.label === 'spam').length
  const majority = spam * 2 > training.length ? 'spam' : 'ham'
  return validation.filter((mail) => mail.label === majority).length / validation.length
}
