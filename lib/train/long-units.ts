import type { TrainOptions } from './options.js'
import type { Recipe } from './recipe.js'

/**
 * A warning where one example may have more rows than a micro-batch is to have: it is never cut, and its micro-batch, of it
 * alone, takes the memory of all its rows. By public numbers, whatever the data hold.
 */
export function longUnitsWarning(
  { maxTokensPerMicrobatch, group }: TrainOptions,
  { tokenizer: { maxLength } }: Recipe,
  maxExamplesPerUser: number,
): string[] {
  const longest = group === undefined ? maxLength : maxLength * maxExamplesPerUser
  if (maxTokensPerMicrobatch === undefined || longest <= maxTokensPerMicrobatch) return []
  const whose = group === undefined ? 'an example' : 'a user'
  const lower = group === undefined ? 'max-length' : 'max-length or max-examples-per-user'
  return [
    `max-tokens-per-microbatch: ${whose} may have ${longest} tokens, is never cut and is computed alone where it has more ` +
      `than ${maxTokensPerMicrobatch}: then memory is that of its own tokens. Lower ${lower} to bound it`,
  ]
}
