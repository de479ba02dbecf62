/**
 * The first name that an object in `text` holds twice, or undefined. `JSON.parse` silently keeps the last of the two,
 * so two readers of one file could see different tensors.
 *
 * @param text valid JSON
 */
export function findDuplicateKey(text: string): string | undefined {
  /** Names seen per open object; undefined for an open array. */
  const open: (Set<string> | undefined)[] = []
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (character === '{') open.push(new Set())
    else if (character === '[') open.push(undefined)
    else if (character === '}' || character === ']') open.pop()
    else if (character === '"') {
      const end = endOfString(text, i)
      const names = open.at(-1)
      if (names !== undefined && isName(text, end)) {
        const name = JSON.parse(text.slice(i, end)) as string
        if (names.has(name)) return name
        names.add(name)
      }
      i = end - 1
    }
  }
  return undefined
}

/** Index after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let i = start + 1
  while (text[i] !== '"') i += text[i] === '\\' ? 2 : 1
  return i + 1
}

/** Whether the string that ends before `end` is a name: a colon follows it. */
function isName(text: string, end: number): boolean {
  let i = end
  while (/\s/.test(text[i] ?? '')) i++
  return text[i] === ':'
}
