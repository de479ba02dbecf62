import { DpMoeError } from '../errors.js'
import type { DatasetCard, DatasetConfig } from './dataset-card.js'
import { GlobBudget, globTest } from './glob.js'

export type DatasetSplit = 'train' | 'validation' | 'test'

/** Paths of the files of each split that there is. */
export type SplitFiles = Partial<Record<DatasetSplit, string[]>>

/** What a split is called in names of files and in cards. */
const words: Readonly<Record<DatasetSplit, readonly string[]>> = {
  train: ['train', 'training'],
  validation: ['validation', 'valid', 'val', 'dev'],
  test: ['test', 'testing'],
}

/** Formats that are read, the preferred first. */
const formats = [['.parquet'], ['.jsonl', '.ndjson'], ['.csv'], ['.tsv']]

const isData = (path: string) => formats.flat().some((extension) => path.endsWith(extension))

/** The configuration meant, and the files of its splits. */
export interface DatasetSelection {
  readonly config: string
  readonly splits: SplitFiles
}

/**
 * The files of a data set, from its card or else from their names.
 *
 * | repository | result |
 * |---|---|
 * | a card with configs | the one named; without a name the default one, or the only one |
 * | a card whose config names files | these, by split; of several formats as they are named |
 * | else | files below the config's folder with the name of a split in their path, of one format: Parquet before JSONL, CSV, TSV |
 * | one data file without the name of a split | it is for training |
 * | no data file that is read, or no such config | DATA_FORMAT, with what there is |
 *
 * @param paths of all files of the repository
 */
export function filesOfDataset(
  name: string,
  config: string | undefined,
  paths: readonly string[],
  card: DatasetCard,
): DatasetSelection {
  const stated = chooseConfig(name, config, card)
  const splits = stated?.patterns ? fromPatterns(stated.patterns, paths) : fromNames(folderOf(config, stated), paths)
  if (Object.keys(splits).length === 0) throw nothingFound(name, config, paths)
  return { config: stated?.name ?? config ?? 'default', splits }
}

function chooseConfig(name: string, config: string | undefined, { configs }: DatasetCard): DatasetConfig | undefined {
  if (configs.length === 0) return undefined
  const chosen =
    config === undefined
      ? (configs.find((one) => one.isDefault) ??
        configs.find((one) => one.name === 'default') ??
        (configs.length === 1 ? configs[0] : undefined))
      : configs.find((one) => one.name === config)
  if (chosen) return chosen
  const known = configs.map((one) => one.name)
  const some = known.length > 20 ? `${known.slice(0, 20).join(', ')} and ${known.length - 20} more` : known.join(', ')
  const what = config === undefined ? `has several parts; name one of them as ${name}/PART` : `has no part '${config}'`
  throw new DpMoeError('DATA_FORMAT', `${name} ${what}. There are ${some}`)
}

function folderOf(config: string | undefined, stated: DatasetConfig | undefined): string {
  const folder = stated ? (stated.folder ?? '') : (config ?? '')
  return folder === '' ? '' : `${folder.replace(/^\.?\/|\/$/g, '')}/`
}

function fromPatterns(patterns: NonNullable<DatasetConfig['patterns']>, paths: readonly string[]): SplitFiles {
  const data = paths.filter(isData)
  const budget = new GlobBudget()
  const found = new Map<DatasetSplit, Set<string>>()
  for (const { split, paths: globs } of patterns) {
    const known = splitNamed(split)
    if (known === undefined) continue
    const files = found.get(known) ?? new Set()
    for (const path of data.filter(globTest(globs, budget))) files.add(path)
    if (files.size > 0) found.set(known, files)
  }
  return Object.fromEntries([...found].map(([split, files]) => [split, [...files].sort()]))
}

const splitNamed = (name: string) => (Object.keys(words) as DatasetSplit[]).find((split) => words[split].includes(name))

function fromNames(folder: string, paths: readonly string[]): SplitFiles {
  const inside = paths.filter((path) => path.startsWith(folder) && isData(path))
  const extensions = formats.find((some) => inside.some((path) => some.some((extension) => path.endsWith(extension))))
  const files = inside.filter((path) => extensions?.some((extension) => path.endsWith(extension))).sort()
  const splits: SplitFiles = {}
  for (const path of files) {
    const split = splitOfPath(path.slice(folder.length))
    if (split === undefined) continue
    splits[split] ??= []
    splits[split].push(path)
  }
  if (Object.keys(splits).length === 0 && files.length === 1) splits.train = files
  return splits
}

/** The split that a path names: in its file, or in the folder nearest to it. */
function splitOfPath(path: string): DatasetSplit | undefined {
  for (const part of path.split('/').reverse()) {
    const found = (Object.keys(words) as DatasetSplit[]).find((split) =>
      words[split].some((word) => new RegExp(`(^|[^a-z])${word}([^a-z]|$)`, 'i').test(part)),
    )
    if (found) return found
  }
  return undefined
}

function nothingFound(name: string, config: string | undefined, paths: readonly string[]): DpMoeError {
  const what = config === undefined ? name : `${name}, part '${config}',`
  const script = paths.find((path) => path.endsWith('.py'))
  const why = script
    ? `its data are made by a program, ${script}, which is not run. Its Parquet files may be in --revision refs/convert/parquet`
    : `expected Parquet, JSONL, CSV or TSV files named after their split, got ${paths.length === 0 ? 'none' : paths.slice(0, 5).join(', ')}`
  return new DpMoeError('DATA_FORMAT', `${what} has no data that can be read: ${why}`)
}
