import { ParquetFile } from '../data/parquet.js'
import { DpMoeError } from '../errors.js'
import { type DatasetOptions, type DatasetSplit, type DownloadedDataset, downloadDataset } from '../hub/index.js'
import type { TrainOptions } from './options.js'

type Transfer = Pick<DatasetOptions, 'revision' | 'onProgress' | 'signal'>

/** The options of a run on a data set of the hub with the files of its splits in place of its name. */
export async function withDataset(options: TrainOptions): Promise<TrainOptions> {
  const { task = 'classification', dataset, datasetRevision, validation, onDownload, signal } = options
  if (dataset === undefined) return options
  const splits: DatasetSplit[] = validation === undefined ? ['train', 'validation'] : ['train']
  const downloaded = await downloadDataset(dataset, { splits, ...transfer(datasetRevision, onDownload, signal) })
  const train = filesOf(downloaded, 'train', dataset)
  const held = validation ?? downloaded.files.validation
  const labelNames = await namesOf(downloaded, train, options.label ?? 'label')
  return {
    ...options,
    train,
    ...(held !== undefined && { validation: held }),
    ...(labelNames && { labelNames }),
    // The card of a data set is public, and so are the classes that it states.
    ...(labelNames && task === 'classification' && { labels: options.labels ?? labelNames }),
  }
}

/** Files to measure a model on. */
export interface MeasuredData {
  readonly data: string | readonly string[]
  /** Which split of a data set they are. */
  readonly split?: DatasetSplit
  /** Class names by number, where the data set states them. */
  readonly labelNames?: readonly string[]
}

/** What names data to measure a model on. */
export interface MeasuredDataOptions {
  /** JSONL, CSV, TSV or Parquet file, or several; needed without `dataset`. */
  data?: string | readonly string[]
  /** A data set of the hub in place of `data`: owner/name or owner/name/part, such as glue/sst2. */
  dataset?: string
  /** Branch, tag or commit of `dataset`. Default 'main'. */
  datasetRevision?: string
  /** Split of `dataset`. Default 'validation' where there is one, else 'test'. */
  split?: DatasetSplit
  /** How far a download is. */
  onDownload?: DatasetOptions['onProgress']
}

/** The files that options name. */
export async function measuredData(
  options: MeasuredDataOptions & { label?: string; signal?: AbortSignal },
): Promise<MeasuredData> {
  const { data, dataset, datasetRevision, split, onDownload, signal } = options
  if ((data === undefined) === (dataset === undefined)) {
    const got = data === undefined ? 'none' : 'both'
    throw new DpMoeError('INVALID_ARGUMENT', `Expected data or dataset, got ${got}`)
  }
  if (dataset === undefined) return { data: data! }
  const choose = (there: readonly DatasetSplit[]) =>
    split ?? (['validation', 'test'] as const).find((one) => there.includes(one)) ?? 'validation'
  const splits = (there: readonly DatasetSplit[]) => [choose(there)]
  const downloaded = await downloadDataset(dataset, { splits, ...transfer(datasetRevision, onDownload, signal) })
  const wanted = choose(downloaded.splits)
  const files = filesOf(downloaded, wanted, dataset)
  const labelNames = await namesOf(downloaded, files, options.label ?? 'label')
  return { data: files, split: wanted, ...(labelNames && { labelNames }) }
}

function transfer(
  revision: string | undefined,
  onProgress: DatasetOptions['onProgress'],
  signal: AbortSignal | undefined,
): Transfer {
  return { ...(revision !== undefined && { revision }), ...(onProgress && { onProgress }), ...(signal && { signal }) }
}

function filesOf({ files, splits }: DownloadedDataset, split: DatasetSplit, dataset: string): readonly string[] {
  const found = files[split]
  if (found) return found
  throw new DpMoeError('DATA_FORMAT', `${dataset} has no split '${split}'; there are ${splits.join(', ')}`)
}

/** Class names by number of the label column: as the card states them, else as a Parquet file does. */
async function namesOf(
  { labelNames }: DownloadedDataset,
  [first]: readonly string[],
  label: string,
): Promise<readonly string[] | undefined> {
  const stated = labelNames.get(label)
  if (stated || !first?.endsWith('.parquet')) return stated
  await using file = await ParquetFile.open(first)
  return file.labelNames(label)
}
