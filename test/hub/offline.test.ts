import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import t from 'tap'
import { type DatasetOptions, type DatasetSplit, downloadDataset } from '../../lib/hub/index.js'
import { COMMIT, LocalHub } from './support/hub.js'

const csv = (name: string) => `text,label\n${name} film,1\n${name} book,0\n`
const hub = await LocalHub.start({
  'owner/four': {
    files: {
      'README.md': '---\nlicense: mit\n---\n',
      'data/train-a.csv': csv('a'),
      'data/train-b.csv': csv('b'),
      'data/validation.csv': csv('v'),
      'data/test.csv': csv('t'),
    },
  },
  'owner/control': { files: { 'train.csv': csv('a'), 'x\0train.csv': csv('b'), 'y\ntrain.csv': csv('c') } },
})
t.teardown(() => hub.stop())
const stopped = await LocalHub.start({})
const gone = stopped.url
stopped.stop()

const root = t.testdir()
let caches = 0
const fresh = () => {
  const cacheFolder = join(root, `cache-${caches++}`)
  const store = join(cacheFolder, 'datasets--owner--four')
  const get = (splits: DatasetOptions['splits'], more: Partial<DatasetOptions> = {}) =>
    downloadDataset('owner/four', { splits, hubUrl: hub.url, cacheFolder, ...more })
  return { cacheFolder, store, snapshot: join(store, 'snapshots', COMMIT), get }
}
const offline = { offline: true }
const lacks = (what: string) => ({
  code: 'NETWORK',
  message: new RegExp(`owner/four: .*${what}.*Connect to the network, or name a file that holds the data`),
})

t.test('half of a split is not the split', async (t) => {
  const { get, snapshot } = fresh()
  await get(['test'])
  const stop = new AbortController()
  const onProgress = () => stop.abort()
  await t.rejects(get(['train'], { signal: stop.signal, onProgress }), { code: 'ABORTED' })
  t.same(readdirSync(join(snapshot, 'data')), ['test.csv', 'train-a.csv'])
  await t.rejects(get(['train'], offline), lacks('switched off, and the cache lacks data/train-b.csv \\(\\d+ bytes\\)'))
  await t.rejects(get(['train'], { hubUrl: gone }), lacks('ECONNREFUSED.*the cache lacks data/train-b.csv'))
  await get(['train'])
  t.equal((await get(['train'], offline)).files.train!.length, 2)
})

t.test('what splits there are is what the hub said, not what was downloaded', async (t) => {
  const { get } = fresh()
  await get(['test', 'train'])
  const first = (there: readonly DatasetSplit[]) => [there.includes('validation') ? 'validation' : 'test'] as const
  await t.rejects(get(first, offline), lacks('data/validation.csv'))
  await t.rejects(get(['train', 'validation'], offline), lacks('data/validation.csv'))
  await t.rejects(get(['train', 'validation'], { hubUrl: gone }), lacks('data/validation.csv'))
  t.same((await get(['test'], offline)).splits, ['train', 'validation', 'test'])
})

t.test('a commit and a revision stay in their folders', async (t) => {
  const { get, store, snapshot } = fresh()
  await get(['train'])
  cpSync(snapshot, join(store, 'snapshots', 'f'.repeat(40)), { recursive: true })
  const elsewhere = join(root, 'elsewhere')
  mkdirSync(elsewhere)
  writeFileSync(join(elsewhere, 'train.csv'), csv('evil'))
  const reference = join(store, 'refs', 'main')
  for (const content of ['', '../../../elsewhere', 'main', COMMIT.slice(1), '.']) {
    writeFileSync(reference, content)
    await t.rejects(get(['train'], offline), lacks("the cache lacks revision 'main'"), content)
  }
  writeFileSync(reference, `${COMMIT}\n`)
  t.equal((await get(['train'], offline)).files.train!.length, 2)
  for (const revision of ['.', '..', './main', 'a/./b', 'a/../../b', '/main', 'main/', 'a\\b', '.git', 'a\0b', '']) {
    for (const more of [offline, {}]) {
      await t.rejects(get(['train'], { revision, ...more }), { code: 'INVALID_ARGUMENT' }, JSON.stringify(revision))
    }
  }
})

t.test('a file that was cut is not used, and with a network downloaded again', async (t) => {
  const { get, snapshot } = fresh()
  await get(['train'])
  const cut = join(snapshot, 'data/train-a.csv')
  truncateSync(cut, 15)
  await t.rejects(get(['train'], offline), lacks('the cache holds 15 of \\d+ bytes of data/train-a.csv'))
  hub.asked.length = 0
  await get(['train'])
  t.equal(readFileSync(cut, 'utf8'), csv('a'))
  const fetched = hub.asked.filter((path) => path.includes('/resolve/')).map((path) => basename(path))
  t.same(new Set(fetched), new Set(['train-a.csv']), 'that file alone')
  truncateSync(join(snapshot, 'README.md'), 3)
  await t.rejects(get(['train'], offline), lacks('bytes of README.md'), 'the card too')
})

t.test('files without the list of what belongs to them are not used', async (t) => {
  const { get, store } = fresh()
  await get(['train'])
  const listings = readdirSync(store).filter((name) => !['snapshots', 'refs'].includes(name))
  t.equal(listings.length, 1)
  const listing = join(store, listings[0]!, `${COMMIT}.json`)
  const whole = readFileSync(listing, 'utf8')
  for (const content of [whole.slice(0, -5), '{}', whole.replace('data/train-a.csv', '../train-a.csv')]) {
    writeFileSync(listing, content)
    await t.rejects(get(['train'], offline), lacks('without the list of its files'), content)
  }
  rmSync(dirname(listing), { recursive: true })
  await t.rejects(get(['train'], { hubUrl: gone }), lacks('without the list of its files'))
  hub.asked.length = 0
  await get(['train'])
  t.notOk(
    hub.asked.some((path) => path.includes('/resolve/')),
    'the list alone is fetched',
  )
  t.ok(await get(['train'], offline))
})

t.test('names with control characters are no files of a data set', async (t) => {
  const options = { hubUrl: hub.url, cacheFolder: fresh().cacheFolder, splits: ['train'] as const }
  const { files } = await downloadDataset('owner/control', options)
  t.same(
    files.train!.map((path) => basename(path)),
    ['train.csv'],
  )
})

t.test('what killed downloads of a file left is removed when it is downloaded, if nobody writes it', async (t) => {
  const { get, snapshot } = fresh()
  mkdirSync(join(snapshot, 'data'), { recursive: true })
  const left = (file: string, days: number) => {
    const path = join(snapshot, 'data', `${file}.0b6e2c4e-58a5-4d3e-9c0b-${String(days).padStart(12, '0')}.incomplete`)
    writeFileSync(path, 'part')
    const then = Date.now() / 1000 - days * 86_400
    utimesSync(path, then, then)
    return path
  }
  const old = left('train-a.csv', 2)
  const kept = [left('train-a.csv', 0), left('validation.csv', 2), join(snapshot, 'data/train-a.csv.mine.incomplete')]
  writeFileSync(kept[2]!, 'of another program')
  utimesSync(kept[2]!, 0, 0)
  await get(['train'])
  t.notOk(existsSync(old))
  t.same(kept.map(existsSync), [true, true, true])
})
