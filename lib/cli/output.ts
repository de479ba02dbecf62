/**
 * What a command says. Results go to standard output, everything else to standard error, so that a program can read the
 * first and a person the second.
 */

/** A reader that stops early (`dp-moe predict ... | head -1`) is no error: the command ends quietly. */
export function ignoreClosedPipes(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  process.stderr.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

/** Writes a line to standard error. */
export function warn(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** Writes to standard output and waits while the reader is behind. */
export async function print(text: string): Promise<void> {
  await new Promise<void>((resolve) => process.stdout.write(text, () => resolve()))
}

/** Writes the result of a command: one JSON object with `--json`, else the text for people. */
export async function printResult(json: boolean | undefined, result: object, text: () => string): Promise<void> {
  await print(`${json ? JSON.stringify(result) : text()}\n`)
}

/** Ends the process once standard output has been written, even where something still waits (a half-read input). */
export async function finish(exitCode: number): Promise<never> {
  await print('')
  process.exit(exitCode)
}

/** Rows of (name, value, remark) as aligned columns. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/**
 * A number for people: six significant digits. A bound is rounded to its safe side, so that what is read is never better
 * than what is certified.
 */
export function shortNumber(value: number, rounding: 'nearest' | 'up' | 'down' = 'nearest'): string {
  if (!Number.isFinite(value) || value === 0) return value === 0 ? '0' : 'infinite'
  let digits = Number(value.toPrecision(DIGITS))
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) + 1 - DIGITS)
  if (rounding === 'up' && digits < value) digits = Number((digits + unit).toPrecision(DIGITS))
  if (rounding === 'down' && digits > value) digits = Number((digits - unit).toPrecision(DIGITS))
  return Math.abs(digits) < 1e-3 ? digits.toExponential() : String(digits)
}

const DIGITS = 6

/** A duration for people: `41 s`, `3 min 5 s`, `2 h 10 min`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds)
  if (!(whole >= 60)) return `${seconds < 10 ? seconds.toFixed(1) : whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
