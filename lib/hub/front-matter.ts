import { DpMoeError } from '../errors.js'

/** Characters of a front matter: one that names the files of two thousand parts has half of it. */
const MAX_LENGTH = 1024 * 1024

/** Lists and maps in each other, where a card has about six. */
const MAX_DEPTH = 64

/** Tags, anchors and aliases, where a card has none; some take the square of their number to read. */
const MAX_PROPERTIES = 100

/**
 * The value of a README's front matter: its first YAML document. undefined where there is none, or no YAML.
 *
 * Guarantee. It takes bounded time and stack, whatever the text: a card is written by anyone. Its nesting is counted before
 * anything that recurses sees it.
 *
 * @throws DpMoeError DATA_FORMAT, where it is longer or more deeply nested than any card
 */
export async function parseFrontMatter(readme: string): Promise<unknown> {
  const [, front] = /^\uFEFF?---\r?\n(.*?)\r?\n---\s*(?:\r?\n|$)/s.exec(readme) ?? []
  if (front === undefined) return undefined
  if (front.length > MAX_LENGTH) throw refused(`a front matter of ${front.length} characters`, MAX_LENGTH)
  const yaml = await import('yaml')
  // Looking for keys that are there twice takes the square of their number.
  const composer = new yaml.Composer({ uniqueKeys: false, logLevel: 'error' })
  // One error is enough: a text can have as many as characters.
  const stop = (_: unknown, _code: string, message: string, isWarning?: boolean) => {
    if (!isWarning) throw new TypeError(message)
  }
  Object.assign(composer, { onError: stop })
  try {
    const [document] = composer.compose(firstDocument(yaml, front))
    return document === undefined || document.errors.length > 0 ? undefined : document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    if (error instanceof DpMoeError) throw error
    return undefined
  }
}

/** The tokens of the first document. Lexer and parser keep a stack of their own, they do not recurse. */
function firstDocument({ Lexer, Parser }: typeof import('yaml'), source: string): import('yaml').CST.Token[] {
  const tokens: import('yaml').CST.Token[] = []
  const parser = new Parser()
  let properties = 0
  for (const lexeme of new Lexer().lex(source)) {
    if (/^[!&*]/.test(lexeme)) properties++
    if (properties > MAX_PROPERTIES) throw refused('many tags, anchors or aliases', MAX_PROPERTIES)
    for (const token of parser.next(lexeme)) {
      if (token.type === 'error') throw new TypeError(token.message)
      if (token.type === 'doc-end') return tokens
      if (token.type === 'document' && tokens.some(({ type }) => type === 'document')) return tokens
      tokens.push(token)
    }
    if (parser.stack.length > MAX_DEPTH) throw refused('lists and maps nested in each other', `${MAX_DEPTH} levels`)
  }
  return [...tokens, ...parser.end()]
}

function refused(what: string, limit: number | string): DpMoeError {
  const message = `The card of the data set (README.md) has ${what}; at most ${limit} are read. Name files that hold the data instead`
  return new DpMoeError('DATA_FORMAT', message)
}
