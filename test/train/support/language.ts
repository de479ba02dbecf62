import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const fixture = (...names: string[]) => fileURLToPath(new URL(`../../${names.join('/')}`, import.meta.url))
const json = (path: string) => JSON.parse(readFileSync(path, 'utf8'))

const unigram = json(fixture('data', 'fixtures', 'unigram.json')).tokenizer

/** The token `</s>`, which ends texts. */
export const END = 1

/** A tiny tokenizer with 40 tokens; `template` puts END behind every text, as that of T5 does. */
export function tinyTokenizer({ template }: { template: boolean }): Record<string, unknown> {
  return template ? unigram : { ...unigram, post_processor: null }
}

/** A folder with a tiny random model, a tokenizer and changed settings. */
export function modelFolder(root: string, name: string, from: string, change: object = {}): string {
  const folder = join(root, name)
  mkdirSync(folder)
  cpSync(fixture('parity', 'fixtures', from), folder, { recursive: true })
  const config = { ...json(join(folder, 'config.json')), eos_token_id: END, ...change }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const tokenizer = tinyTokenizer({ template: from.startsWith('switch') })
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  return folder
}

/** A data file of JSON lines. */
export function writeLines(path: string, rows: readonly object[]): string {
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return path
}

/** A question and its answer, which follows from it; who asks is one of 20. */
export function dialogues(count: number): { question: string; answer: string; user: string }[] {
  const words = ['film', 'world', 'good', 'hello']
  return Array.from({ length: count }, (_, i) => {
    const word = words[i % words.length]!
    const answer = words[(i + 1) % words.length]!
    return { question: `the ${word} ${'abc'[i % 3]}?`, answer: `the ${answer}!`, user: `user ${i % 20}` }
  })
}
