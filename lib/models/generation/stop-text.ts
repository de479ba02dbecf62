/** Gives text out up to a text that ends it; what may be the beginning of that one waits. */
export class StopText {
  readonly #stop: string | undefined
  #held = ''
  #found = false

  /** @param stop undefined: nothing ends the text */
  constructor(stop: string | undefined) {
    this.#stop = stop
  }

  /** Whether the text has ended: nothing comes out any more. */
  get found(): boolean {
    return this.#found
  }

  push(piece: string): string {
    if (this.#found) return ''
    const text = this.#held + piece
    const stop = this.#stop
    const at = stop === undefined ? -1 : text.indexOf(stop)
    this.#found = at >= 0
    const end = this.#found ? at : text.length - beginning(text, stop)
    this.#held = this.#found ? '' : text.slice(end)
    return text.slice(0, end)
  }

  /** What waited for the rest of the stop text, which did not come. */
  end(): string {
    const held = this.#held
    this.#held = ''
    return held
  }
}

/** Length of the longest end of `text` with which `stop` begins. */
function beginning(text: string, stop: string | undefined): number {
  if (stop === undefined) return 0
  let length = Math.min(text.length, stop.length - 1)
  while (length > 0 && !stop.startsWith(text.slice(-length))) length--
  return Math.max(0, length)
}
