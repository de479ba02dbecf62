import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { paperRows, requireSettings } from './rows.js'
import type { PaperResult } from './run.js'

/**
 * Writes the measured rows into docs/paper.md, between its two markers.
 *
 *     node --import tsx benchmarks/paper/table.ts
 */
const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const [begin, end] = ['<!-- measured: begin -->', '<!-- measured: end -->']

const measured = JSON.parse(readFileSync(file('benchmarks/results/paper.json'), 'utf8')) as PaperResult[]
const percent = (value: number) => (100 * value).toFixed(1)
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

const lines = paperRows.map((row) => {
  const { name, seeds, share } = row
  const title = name.replace('quarter', `${share} of the data`)
  const results = measured.filter((result) => result.row === name)
  for (const { options } of results) requireSettings('benchmarks/results/paper.json', options, row)
  const [first] = results
  if (!first) return `| ${title} | not measured | | | | | | | | | | |`
  const accuracies = results.map(({ accuracy }) => accuracy)
  const spread = `${percent(Math.min(...accuracies))} to ${percent(Math.max(...accuracies))}`
  const accuracy = seeds.length > 1 ? `${percent(mean(accuracies))} (${spread})` : percent(accuracies[0]!)
  const cells = [
    title,
    accuracy,
    mean(results.map(({ loss }) => loss)).toFixed(2),
    results.map(({ seed }) => seed).join(', '),
    first.epsilon?.toFixed(3) ?? '',
    first.options.maxGradNorm ?? '',
    first.noiseMultiplier?.toFixed(4) ?? '',
    `${first.options.expectedBatchSize} x ${first.steps}`,
    (mean(results.map(({ seconds }) => seconds)) / 60).toFixed(0),
    mean(results.map(({ tokensPerSecond }) => tokensPerSecond)).toFixed(0),
    mean(results.map(({ ofFlopLimit }) => ofFlopLimit)).toFixed(2),
    first.imbalance.map((value) => value.toFixed(2)).join(' '),
  ]
  return `| ${cells.join(' | ')} |`
})

const head = [
  '| run | validation accuracy, % (range) | loss | seeds | epsilon | C | sigma | batch x steps | minutes | tokens/s | of the FLOP limit | fullest expert / mean, by mixture |',
  '|---|---|---|---|---|---|---|---|---|---|---|---|',
]
const document = readFileSync(file('docs/paper.md'), 'utf8')
const [before, rest] = document.split(begin) as [string, string]
const after = rest.split(end)[1]!
writeFileSync(file('docs/paper.md'), `${before}${begin}\n${[...head, ...lines].join('\n')}\n${end}${after}`)
