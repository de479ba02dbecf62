import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createAccountant, gaussianEpsilon, gaussianNoiseMultiplier, solve } from '../lib/accounting/index.js'
import { type GoldenRow, goldenRows } from '../test/accounting/golden-rows.js'

/**
 * Writes the table of golden rows into docs/accounting.md, between its two markers: what the library says, what we say.
 *
 *     node --import tsx benchmarks/accounting-table.ts
 */
const path = fileURLToPath(new URL('../docs/accounting.md', import.meta.url))
const [begin, end] = ['<!-- golden rows: begin -->', '<!-- golden rows: end -->']

/** Our value and, where there is one, our lower bound. */
function ours({ question, delta }: GoldenRow): { value: number; lowerBound?: number } | undefined {
  switch (question.ask) {
    case 'epsilon': {
      const accountant = createAccountant(question.accountant, question.relation).compose(question.event)
      const { epsilon, lowerBound } = accountant.epsilon(delta)
      return question.accountant === 'pld' ? { value: epsilon, lowerBound } : { value: epsilon }
    }
    case 'gaussian-epsilon':
      return { value: gaussianEpsilon(question.noiseMultiplier, delta) }
    case 'gaussian-noise':
      return { value: gaussianNoiseMultiplier(question.epsilon, delta) }
    case 'noise': {
      const { accountant, epsilon, sampleRate, steps } = question
      return { value: solve({ accountant, epsilon, sampleRate, steps, delta }).noiseMultiplier }
    }
    case 'later':
      return undefined
  }
}

const digits = (value: number) => value.toPrecision(8)

const lines = goldenRows().map((row, i) => {
  const found = ours(row)
  const shown = found
    ? [
        found.lowerBound === undefined ? '' : digits(found.lowerBound),
        digits(found.value),
        (found.value - row.value).toExponential(1),
      ]
    : ['', 'later', '']
  return `| ${[i + 1, row.label, row.library, digits(row.value), ...shown].join(' | ')} |`
})
const table = [
  '| | row | library | its value | our lower bound | ours | difference |',
  '|---|---|---|---|---|---|---|',
  ...lines,
].join('\n')
const document = readFileSync(path, 'utf8')
const [before, after] = [document.indexOf(begin), document.indexOf(end)]
if (before < 0 || after < before) throw new RangeError(`Expected the markers ${begin} and ${end} in ${path}`)
writeFileSync(path, `${document.slice(0, before)}${begin}\n\n${table}\n\n${document.slice(after)}`)
