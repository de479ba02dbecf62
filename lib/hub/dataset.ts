import { join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { type DatasetCard, parseDatasetCard } from './dataset-card.js'
import { type DatasetSelection, type DatasetSplit, filesOfDataset, type SplitFiles } from './dataset-files.js'
import { downloadRepository, type HubOptions } from './download.js'
import { isRepositoryName } from './repository.js'

export interface DatasetOptions extends HubOptions {
  /** The splits to download, or what chooses among those that there are; those that there are not are left out. */
  readonly splits: readonly DatasetSplit[] | ((there: readonly DatasetSplit[]) => readonly DatasetSplit[])
}

/** A data set in the cache. */
export interface DownloadedDataset {
  /** Paths of the files of each split that was asked for and is there. */
  readonly files: SplitFiles
  /** Every split that the data set has. */
  readonly splits: readonly DatasetSplit[]
  /** Class names by number, of the columns for which its card states them. */
  readonly labelNames: ReadonlyMap<string, readonly string[]>
}

/** Owners of data sets that are known by their names alone. */
const owners: Readonly<Record<string, string>> = {
  ag_news: 'fancyzhx',
  dbpedia_14: 'fancyzhx',
  emotion: 'dair-ai',
  glue: 'nyu-mll',
  imdb: 'stanfordnlp',
  rotten_tomatoes: 'cornell-movie-review-data',
  sst2: 'stanfordnlp',
  tweet_eval: 'cardiffnlp',
}

const README = 'README.md'

/** A card is read whole; long ones are a tenth of this. */
const MAX_README_BYTES = 8 * 1024 * 1024

/**
 * The repository and the part of it that a name means.
 *
 * | name | means |
 * |---|---|
 * | owner/name | a data set, its default part |
 * | owner/name/part | a part of it, such as nyu-mll/glue/sst2 |
 * | glue, glue/sst2 and others known without their owner | nyu-mll/glue, and a part of it |
 */
function parse(name: string): { repository: string; config: string | undefined } | undefined {
  const [first = '', ...rest] = name.split('/')
  const words = Object.hasOwn(owners, first) && rest.length < 2 ? [owners[first]!, first, ...rest] : [first, ...rest]
  const [owner, repository, config, ...more] = words
  if (repository === undefined || !isRepositoryName(`${owner}/${repository}`) || more.length > 0) return undefined
  return config === '' ? undefined : { repository: `${owner}/${repository}`, config }
}

/** Whether a text can name a data set of the hub. */
export function isDatasetName(name: string): boolean {
  return parse(name) !== undefined
}

/**
 * Downloads splits of a data set of the hub: its Parquet, JSONL, CSV or TSV files, nothing else. The cache is that of
 * `downloadModel`, with the same checksums.
 *
 * Guarantee. No program of a data set is ever run or downloaded.
 *
 * @param name owner/name or owner/name/part; also glue/sst2
 * @throws DpMoeError as `downloadModel`; DATA_FORMAT where there are no data that can be read, or no such part
 */
export async function downloadDataset(
  name: string,
  { splits, ...options }: DatasetOptions,
): Promise<DownloadedDataset> {
  const parsed = parse(name)
  if (!parsed) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a data set as owner/name or owner/name/part, got '${name}'`)
  }
  const { repository, config } = parsed
  const there = ({ splits: all }: DatasetSelection) =>
    (['train', 'validation', 'test'] as const).filter((split) => all[split] !== undefined)
  const chosenOf = (selection: DatasetSelection) => {
    const asked = typeof splits === 'function' ? splits(there(selection)) : splits
    return there(selection).filter((split) => asked.includes(split))
  }
  const wanted = (selection: DatasetSelection) => chosenOf(selection).flatMap((split) => selection.splits[split]!)
  const result = (folder: string, card: DatasetCard, selection: DatasetSelection): DownloadedDataset => ({
    files: Object.fromEntries(
      chosenOf(selection).map((split) => [split, selection.splits[split]!.map((path) => join(folder, path))]),
    ),
    splits: there(selection),
    labelNames: card.labelNames.get(selection.config) ?? new Map(),
  })
  return downloadRepository({ type: 'dataset', name: repository }, options, {
    async choose(files, read) {
      const readme = files.find(({ path }) => path === README)
      if (readme && readme.size > MAX_README_BYTES) throw tooLong(repository, readme.size)
      const card = await parseDatasetCard(readme ? await read(README) : '')
      const selection = filesOfDataset(
        repository,
        config,
        files.map(({ path }) => path),
        card,
      )
      const paths = new Set(wanted(selection))
      return { files: files.filter(({ path }) => paths.has(path)), result: (folder) => result(folder, card, selection) }
    },
  })
}

function tooLong(repository: string, size: number): DpMoeError {
  const message = `The card of ${repository} (${README}) has ${size} bytes, expected at most ${MAX_README_BYTES}. Name files that hold the data instead`
  return new DpMoeError('DATA_FORMAT', message)
}
