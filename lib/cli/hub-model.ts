import cliProgress from 'cli-progress'
import { type HubOptions, type HubProgress, isHubName, modelFolder } from '../hub/index.js'
import { usageError } from './failure.js'

/** The folder of a model, downloaded where it is on the hub; a terminal sees how far the download is. */
export async function findModel(
  model: string,
  { revision, signal }: { revision: string | undefined; signal: AbortSignal },
): Promise<string> {
  if (!isHubName(model) && revision !== undefined) {
    throw usageError(`--revision is for models on the hub (owner/name), got '${model}'`)
  }
  return withDownloadBar((bar) => modelFolder(model, { ...(revision !== undefined && { revision }), ...bar, signal }))
}

/** Runs `work`, whose downloads a terminal sees. */
export async function withDownloadBar<T>(work: (options: Pick<HubOptions, 'onProgress'>) => Promise<T>): Promise<T> {
  const bar = process.stderr.isTTY ? new DownloadBar(process.stderr) : undefined
  try {
    return await work(bar ? { onProgress: (now) => bar.update(now) } : {})
  } finally {
    bar?.stop()
  }
}

/** How far a download is, on a terminal; it is gone when all is there. */
export class DownloadBar {
  readonly #bar: cliProgress.SingleBar

  constructor(stream: NodeJS.WriteStream) {
    this.#bar = new cliProgress.SingleBar(
      {
        stream,
        format: 'downloading {file} {bar} {percentage} % of {megabytes} MB',
        barsize: 20,
        gracefulExit: false,
        hideCursor: null,
        clearOnComplete: true,
      },
      cliProgress.Presets.shades_classic,
    )
  }

  update({ file, bytes, totalBytes }: HubProgress): void {
    const facts = { file, megabytes: (totalBytes / 1e6).toFixed(1) }
    if (!this.#bar.isActive) this.#bar.start(totalBytes, 0, facts)
    this.#bar.update(bytes, facts)
    if (bytes >= totalBytes) this.stop()
  }

  stop(): void {
    this.#bar.stop()
  }
}
