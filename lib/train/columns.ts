import { DpMoeError } from '../errors.js'
import type { PretrainedTask } from '../models/model-from-pretrained.js'

/** Names of the columns that a task may read. */
export interface ColumnOptions {
  /** Column with the text: of classification, and of causal-lm where all of a text is learnt. Default 'text'. */
  text?: string
  /** Of classification: column with the label, names or numbers. Default 'label'. */
  label?: string
  /** Of causal-lm: column with what is given. With `completion`, only that is learnt. Default 'prompt'. */
  prompt?: string
  /** Of causal-lm: column with what is to be written after the prompt. Default 'completion'. */
  completion?: string
  /** Of seq2seq: column with the text to read. Default 'source'. */
  source?: string
  /** Of seq2seq: column with the text to write. Default 'target'. */
  target?: string
}

/** The columns to read, by what `readExamples` calls them. */
export interface Columns {
  readonly text: string
  readonly label?: string
  readonly target?: string
}

/** Every column that some task reads. */
export const columnNames = ['text', 'label', 'prompt', 'completion', 'source', 'target'] as const

/** The columns that each task may read. */
export const columnsOfTask: Readonly<Record<PretrainedTask, readonly (keyof ColumnOptions)[]>> = {
  classification: ['text', 'label'],
  'causal-lm': ['text', 'prompt', 'completion'],
  seq2seq: ['source', 'target'],
}

/**
 * The columns of a task.
 *
 * | task | given | read |
 * |---|---|---|
 * | classification | text, label | both |
 * | causal-lm | text, or nothing | text, all of it learnt |
 * | causal-lm | prompt, completion, or one of them | both, the completion learnt |
 * | seq2seq | source, target | both, the target learnt |
 * | any | a column of another task; text beside prompt or completion | INVALID_ARGUMENT |
 */
export function columnsOf(task: 'classification', options: ColumnOptions): Columns & { readonly label: string }
export function columnsOf(task: PretrainedTask, options: ColumnOptions): Columns
export function columnsOf(task: PretrainedTask, options: ColumnOptions): Columns {
  const foreign = columnNames.find((name) => options[name] !== undefined && !columnsOfTask[task].includes(name))
  if (foreign !== undefined) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `${foreign}: not for ${task}, which reads ${columnsOfTask[task].join(', ')}`,
    )
  }
  const { text, label, prompt, completion, source, target } = options
  if (task === 'classification') return { text: text ?? 'text', label: label ?? 'label' }
  if (task === 'seq2seq') return { text: source ?? 'source', target: target ?? 'target' }
  if (prompt === undefined && completion === undefined) return { text: text ?? 'text' }
  if (text !== undefined) {
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected either text, or prompt and completion, got both')
  }
  return { text: prompt ?? 'prompt', target: completion ?? 'completion' }
}
