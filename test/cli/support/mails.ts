import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

const WORDS = {
  spam: ['prize', 'winner', 'cheap', 'offer', 'free', 'click'],
  ham: ['meeting', 'report', 'lunch', 'thanks', 'patch', 'review'],
}

/** Lines that any classifier can tell apart; the same for the same count. */
export function mails(count: number): { text: string; label: 'spam' | 'ham' }[] {
  return Array.from({ length: count }, (_, i) => {
    const label = i % 2 === 0 ? 'spam' : 'ham'
    const words = Array.from({ length: 6 }, (_, j) => WORDS[label][(i * 7 + j * 5 + (i >> 3)) % 6])
    return { text: `number ${i} ${words.join(' ')}`, label }
  })
}

/** Writes them as JSON lines and returns the path. */
export function writeMails(folder: string, name: string, count: number): string {
  const path = join(folder, name)
  writeFileSync(
    path,
    mails(count)
      .map((mail) => `${JSON.stringify(mail)}\n`)
      .join(''),
  )
  return path
}

/** Flags of a model that trains in a moment. */
export const SMALL = ['--model', 'vocabularySize=1024,hiddenSize=16,numExperts=4', '--threads', '1']
