const MEBIBYTE = 1024 * 1024

/** Bytes that any file may unpack to. */
const BYTES_AT_LEAST = 64 * MEBIBYTE

/** Times its size that a large file may unpack to: far above what data do, far below what a file can claim. */
const BYTES_PER_BYTE = 128

/** What the pages of a file may unpack to in all, so that a small file cannot take all memory. */
export class UnpackingBudget {
  #left: number

  /** @param bytes size of the file */
  constructor(bytes: number) {
    this.#left = BYTES_AT_LEAST + BYTES_PER_BYTE * bytes
  }

  /** @throws RangeError when all has been taken */
  take(bytes: number): void {
    this.#left -= bytes
    if (this.#left < 0) throw new RangeError(`it unpacks to more than ${BYTES_PER_BYTE} times its size`)
  }
}
