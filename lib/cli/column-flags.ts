import { text } from './flags.js'

/** The columns that a task reads: the names of ColumnOptions. */
export const columnFlags = {
  text: text('<column>', 'Column with the text (classification, causal-lm)', 'text'),
  label: text('<column>', 'classification: column with the label, names or numbers', 'label'),
  prompt: text('<column>', 'causal-lm: column with a text that is given; only the completion is learnt', 'prompt'),
  completion: text('<column>', 'causal-lm: column with what comes after the prompt', 'completion'),
  source: text('<column>', 'seq2seq: column with the text to read', 'source'),
  target: text('<column>', 'seq2seq: column with the text to write', 'target'),
}
