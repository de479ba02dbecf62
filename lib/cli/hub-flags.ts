import { group, text } from './flags.js'

/** For commands whose operand is a folder in the Hugging Face layout, or owner/name on the hub. */
export const hubFlags = group('Model', {
  revision: text('<revision>', 'Branch, tag or commit of a model on the hub', 'main'),
})
