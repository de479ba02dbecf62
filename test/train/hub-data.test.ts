import t from 'tap'
import { measuredData, withDataset } from '../../lib/train/hub-data.js'
import { LocalHub } from '../hub/support/hub.js'

const csv = 'text,label\ngood film,1\nbad film,0\n'
const hub = await LocalHub.start({
  'owner/three': { files: { 'train.csv': csv, 'dev.csv': csv, 'test.csv': csv } },
  'owner/two': { files: { 'train.csv': csv, 'test.csv': csv } },
})
t.teardown(() => hub.stop())
const root = t.testdir()
const environment = (cache: string, offline = '') =>
  Object.assign(process.env, { HF_HUB_CACHE: `${root}/${cache}`, HF_ENDPOINT: hub.url, HF_HUB_OFFLINE: offline })
const train = (dataset: string) => withDataset({ dataset, targetEpsilon: 8, output: 'none' })

t.test('data to measure on say which split they are', async (t) => {
  environment('measured')
  t.match(await measuredData({ dataset: 'owner/three' }), { split: 'validation', data: [/dev\.csv$/] })
  t.match(await measuredData({ dataset: 'owner/two' }), { split: 'test', data: [/test\.csv$/] })
  t.match(await measuredData({ dataset: 'owner/three', split: 'train' }), { split: 'train', data: [/train\.csv$/] })
  t.same(await measuredData({ data: 'mine.csv' }), { data: 'mine.csv' })
  await t.rejects(measuredData({ dataset: 'owner/two', split: 'validation' }), {
    code: 'DATA_FORMAT',
    message: "owner/two has no split 'validation'; there are train, test",
  })
})

t.test('without a network no other split is taken, and none is left out', async (t) => {
  environment('offline')
  await measuredData({ dataset: 'owner/three', split: 'test' })
  await measuredData({ dataset: 'owner/three', split: 'train' })
  environment('offline', '1')
  const lacks = { code: 'NETWORK', message: /the cache lacks dev\.csv/ }
  await t.rejects(measuredData({ dataset: 'owner/three' }), lacks)
  await t.rejects(train('owner/three'), lacks)
  t.match(await withDataset({ dataset: 'owner/three', validation: 0.2, targetEpsilon: 8, output: 'none' }), {
    train: [/train\.csv$/],
    validation: 0.2,
  })
  environment('offline')
  t.match(await train('owner/three'), { train: [/train\.csv$/], validation: [/dev\.csv$/] })
})
