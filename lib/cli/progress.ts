import cliProgress from 'cli-progress'
import type { TrainMessage, TrainProgress } from '../train/options.js'
import { duration } from './output.js'

const MILLISECONDS_BETWEEN_LINES = 5000

/** Shows a training run on standard error. */
export interface ProgressView {
  update(progress: TrainProgress): void
  message(message: TrainMessage): void
  /** Call it when the run has ended, well or not. */
  stop(): void
}

/** A bar where there is a terminal for it, else a line every few seconds. */
export function progressView(options: { bar: boolean; stream?: NodeJS.WriteStream; title?: string }): ProgressView {
  const { bar, stream = process.stderr, title = 'training' } = options
  return bar ? new ProgressBar(stream, title) : new ProgressLines(stream, title)
}

class ProgressBar implements ProgressView {
  readonly #stream: NodeJS.WriteStream
  readonly #bars: cliProgress.MultiBar
  readonly #title: string
  #bar: cliProgress.SingleBar | undefined

  constructor(stream: NodeJS.WriteStream, title: string) {
    this.#stream = stream
    this.#title = title
    this.#bars = new cliProgress.MultiBar(
      {
        stream,
        format: '{title} {bar} {step}/{total}  {facts}',
        barsize: 20,
        autopadding: true,
        // Ctrl-C is ours: it writes a checkpoint first, and a hidden cursor would stay hidden.
        gracefulExit: false,
        hideCursor: null,
        emptyOnZero: true,
      },
      cliProgress.Presets.shades_classic,
    )
  }

  update(progress: TrainProgress): void {
    const { step, steps } = progress
    this.#bar ??= this.#bars.create(steps, 0)
    this.#bar.update(step, { title: this.#title, step, facts: facts(progress) })
  }

  message(message: TrainMessage): void {
    const line = `${messageLine(message)}\n`
    if (this.#bar) this.#bars.log(line)
    else this.#stream.write(line)
  }

  stop(): void {
    if (!this.#bar) return
    this.#bars.update() // writes the messages that still wait
    this.#bars.stop()
  }
}

class ProgressLines implements ProgressView {
  readonly #stream: NodeJS.WriteStream
  readonly #title: string
  #last = performance.now()

  constructor(stream: NodeJS.WriteStream, title: string) {
    this.#stream = stream
    this.#title = title
  }

  update(progress: TrainProgress): void {
    const now = performance.now()
    if (now - this.#last < MILLISECONDS_BETWEEN_LINES && progress.step < progress.steps) return
    this.#last = now
    this.#stream.write(`${this.#title}: step ${progress.step} of ${progress.steps}, ${facts(progress)}\n`)
  }

  message(message: TrainMessage): void {
    this.#stream.write(`${messageLine(message)}\n`)
  }

  stop(): void {}
}

function messageLine({ level, text }: TrainMessage): string {
  return level === 'warning' ? `warning: ${text}` : text
}

/** Loss, speed, budget and time left in one line. */
export function facts({ step, steps, loss, examplesPerSecond, epsilon, secondsLeft }: TrainProgress): string {
  const parts = [
    `loss ${Number.isFinite(loss) ? loss.toFixed(3) : 'unknown'}`,
    `${Math.round(examplesPerSecond).toLocaleString('en')} examples/s`,
  ]
  if (epsilon !== undefined) parts.push(`eps ${Number.isFinite(epsilon) ? epsilon.toFixed(2) : 'infinite'}`)
  if (step < steps && Number.isFinite(secondsLeft)) parts.push(`${duration(secondsLeft)} left`)
  return parts.join(', ')
}
