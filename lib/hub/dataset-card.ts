import { z } from 'zod'
import { parseFrontMatter } from './front-matter.js'

const pattern = z.union([z.string(), z.array(z.string())])
const config = z.looseObject({
  config_name: z.string().default('default'),
  default: z.boolean().default(false),
  data_dir: z.string().optional(),
  data_files: z.union([pattern, z.array(z.looseObject({ split: z.string(), path: pattern }))]).optional(),
})
const info = z.looseObject({
  config_name: z.string().default('default'),
  features: z.array(z.looseObject({ name: z.string(), dtype: z.unknown() })).default([]),
})
const schema = z.looseObject({
  configs: z.array(config).default([]),
  dataset_info: z.union([z.array(info), info]).optional(),
})
const classLabel = z.looseObject({ class_label: z.looseObject({ names: z.record(z.string(), z.string()) }) })

/** A part of a data set with files of its own, as its card states it. */
export interface DatasetConfig {
  readonly name: string
  readonly isDefault: boolean
  /** Folder of its files, where they are not named one by one. */
  readonly folder: string | undefined
  /** Patterns of its files, by split; undefined where the names of the files tell. */
  readonly patterns: readonly { readonly split: string; readonly paths: readonly string[] }[] | undefined
}

/** What the card of a data set says: the front matter of its README.md. */
export interface DatasetCard {
  readonly configs: readonly DatasetConfig[]
  /** Class names by number, by configuration and column. */
  readonly labelNames: ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>
}

const empty: DatasetCard = { configs: [], labelNames: new Map() }

/**
 * Reads a card; one without front matter, or with one of another form, says nothing.
 *
 * @throws DpMoeError DATA_FORMAT, where the front matter is longer or more deeply nested than any card
 */
export async function parseDatasetCard(readme: string): Promise<DatasetCard> {
  const parsed = schema.safeParse(await parseFrontMatter(readme))
  if (!parsed.success) return empty
  const { configs, dataset_info: infos = [] } = parsed.data
  return {
    configs: configs.map((one) => ({
      name: one.config_name,
      isDefault: one.default,
      folder: one.data_dir,
      patterns: patternsOf(one.data_files),
    })),
    labelNames: new Map([infos].flat().map((one) => [one.config_name, labelsOf(one.features)])),
  }
}

const list = (paths: string | readonly string[]) => [paths].flat()

/** Files without a split are for training. */
function patternsOf(files: z.infer<typeof config>['data_files']): DatasetConfig['patterns'] {
  if (files === undefined) return undefined
  if (typeof files === 'string') return [{ split: 'train', paths: [files] }]
  const alone = files.filter((one) => typeof one === 'string')
  const split = files.flatMap((one) => (typeof one === 'string' ? [] : [{ split: one.split, paths: list(one.path) }]))
  return alone.length > 0 ? [{ split: 'train', paths: alone }, ...split] : split
}

function labelsOf(features: z.infer<typeof info>['features']): Map<string, readonly string[]> {
  const found = new Map<string, readonly string[]>()
  for (const { name, dtype } of features) {
    const parsed = classLabel.safeParse(dtype)
    if (!parsed.success) continue
    const names = Object.entries(parsed.data.class_label.names).sort(([a], [b]) => Number(a) - Number(b))
    if (names.every(([number], index) => Number(number) === index))
      found.set(
        name,
        names.map(([, label]) => label),
      )
  }
  return found
}
