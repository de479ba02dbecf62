import { readFileSync } from 'node:fs'
import { mixBits } from '../../lib/data/index.js'

/** A row of SST-2. */
export interface Sentence {
  readonly text: string
  readonly label: number
}

export interface HeldOut {
  readonly training: readonly Sentence[]
  readonly heldOut: readonly Sentence[]
}

/** Shorter rows are phrases, most likely. */
const SHORTEST = 10

/** A file of SST-2: a header, then a sentence and its label, with a tab between. */
export function readSentences(path: string): Sentence[] {
  const [, ...lines] = readFileSync(path, 'utf8').trimEnd().split('\n')
  return lines.map((line) => {
    const [text, label] = line.split('\t')
    return { text: text!.trim(), label: Number(label) }
  })
}

/**
 * Holds `count` whole sentences out, and with them every phrase that is part of one: SST-2's training data are mostly phrases
 * of its sentences, and a held-out phrase whose sentence trains is easier than the validation data. Always the same ones.
 */
export function holdOut(rows: readonly Sentence[], count: number): HeldOut {
  const texts = new Set(rows.map(({ text }) => text))
  const parts = new Set<string>()
  for (const text of texts) for (const phrase of phrasesOf(text)) if (phrase !== text) parts.add(phrase)
  const whole = [...texts].filter((text) => !parts.has(text) && text.split(' ').length >= SHORTEST)
  const place = new Map(whole.map((text, index) => [text, mixBits(index)]))
  const held = new Set(whole.sort((a, b) => place.get(a)! - place.get(b)!).slice(0, count))
  const left = new Set([...held].flatMap((text) => [...phrasesOf(text)]))
  const found = new Map(rows.map((row) => [row.text, row]))
  return {
    training: rows.filter(({ text }) => !left.has(text)),
    heldOut: [...held].map((text) => found.get(text)!),
  }
}

/** Every run of words of a text, the text itself too. */
function* phrasesOf(text: string): Generator<string> {
  const words = text.split(' ')
  for (let start = 0; start < words.length; start++) {
    for (let end = start + 1; end <= words.length; end++) yield words.slice(start, end).join(' ')
  }
}
