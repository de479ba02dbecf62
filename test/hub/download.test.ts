import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import { downloadModel, type HubOptions, isHubName, modelFolder } from '../../lib/hub/index.js'

const COMMIT = '0123456789abcdef0123456789abcdef01234567'

/** A repository as the hub serves it; a file may be announced with another content than it is sent with. */
interface Repository {
  files: Record<string, string>
  sent?: Record<string, string>
  status?: number
  /** What happens to a download of its weights. */
  weights?: 'endless' | 'slow' | 'gone'
}

/** Bytes of endless weights that were taken. */
let taken = 0

/** Lets slow weights arrive to their end. */
const held: (() => void)[] = []

const repositories: Record<string, Repository> = {}
const asked: string[] = []

const server = createServer((request, response) => {
  const url = new URL(request.url!, 'http://localhost')
  asked.push(url.pathname)
  const json = (value: unknown, status = 200) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
  const info = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)/.exec(url.pathname)
  const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname)
  const repository = repositories[(info ?? file)?.[1] ?? '']
  if (!repository) return json({ error: 'Repository not found' }, 404)
  if (repository.status) return json({ error: 'no' }, repository.status)
  if (info?.[2] === 'revision') {
    if (!['main', 'HEAD', COMMIT].includes(info[3]!)) return json({ error: 'Revision not found' }, 404)
    return json({ _id: '1', id: info[1], sha: COMMIT, private: false, downloads: 0, likes: 0, gated: false })
  }
  if (info) return json(Object.entries(repository.files).map(([path, content]) => entryOf(path, content)))
  const content = (repository.sent ?? repository.files)[file![3]!] ?? repository.files[file![3]!]
  if (content === undefined) return json({ error: 'Entry not found' }, 404)
  const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '')
  const part = range ? content.slice(Number(range[1]), Number(range[2]) + 1) : content
  const headers: Record<string, string> = { 'content-length': String(part.length), etag: '"1"' }
  const whole = file![3] === 'model.safetensors' && !range
  if (whole && repository.weights === 'gone') return json({ error: 'Entry not found' }, 404)
  if (whole && repository.weights === 'endless') return sendForever(response)
  if (whole && repository.weights === 'slow') {
    response.writeHead(200, headers).write(part.slice(0, 3))
    held.push(() => response.end(part.slice(3)))
    return
  }
  if (range) headers['content-range'] = `bytes ${range[1]}-${range[2]}/${content.length}`
  response.writeHead(range ? 206 : 200, headers).end(part)
})

function sendForever(response: ServerResponse): void {
  response.writeHead(200, { etag: '"1"' })
  const piece = Buffer.alloc(2 ** 16)
  const send = () => {
    while (!response.destroyed && taken < 2 ** 28 && response.write(piece)) taken += piece.length
    if (taken >= 2 ** 28) response.end()
  }
  response.on('drain', send)
  send()
}

function entryOf(path: string, content: string) {
  const size = Buffer.byteLength(content)
  const oid = createHash('sha1').update(`blob ${size}\0${content}`).digest('hex')
  if (!path.endsWith('.safetensors')) return { type: 'file', path, size, oid }
  const lfs = { oid: createHash('sha256').update(content).digest('hex'), size, pointerSize: 100 }
  return { type: 'file', path, size, oid: '0'.repeat(40), lfs }
}

await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
t.teardown(() => server.close())
const hubUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const root = t.testdir()
let caches = 0
const fresh = (): HubOptions => ({ hubUrl, cacheFolder: join(root, `cache-${caches++}`) })

const small = { 'config.json': '{"model_type":"bert"}', 'tokenizer.json': '{}', 'README.md': 'text' }
repositories['owner/single'] = {
  files: { ...small, 'model.safetensors': 'weights'.repeat(1000), 'pytorch_model.bin': 'x' },
}
const index = JSON.stringify({
  weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
})
repositories['owner/sharded'] = {
  files: {
    ...small,
    'model.safetensors.index.json': index,
    'model-00001-of-00002.safetensors': 'first',
    'model-00002-of-00002.safetensors': 'second',
    'onnx/model.safetensors': 'other',
  },
}
repositories['owner/pickled'] = { files: { ...small, 'pytorch_model.bin': 'x' } }
repositories['owner/empty'] = { files: { 'config.json': '{}' } }
repositories['owner/changed'] = {
  files: { ...small, 'model.safetensors': 'weights' },
  sent: { 'model.safetensors': 'weightz' },
}
repositories['owner/config-changed'] = {
  files: { ...small, 'model.safetensors': 'weights' },
  sent: { 'config.json': '{"model_type":"bort"}' },
}
for (const weights of ['endless', 'slow', 'gone'] as const) {
  repositories[`owner/${weights}`] = { files: { ...small, 'model.safetensors': 'weights' }, weights }
}
repositories['owner/secret'] = { files: {}, status: 401 }
repositories['owner/down'] = { files: {}, status: 503 }

/** A port that nothing listens on. */
async function closedPort(): Promise<number> {
  const listener = createServer()
  await new Promise<void>((listening) => listener.listen(0, '127.0.0.1', listening))
  const { port } = listener.address() as AddressInfo
  await new Promise((closed) => listener.close(closed))
  return port
}

const filesIn = (folder: string) => readdirSync(folder).sort()

t.test('a model comes with its configuration, tokenizer and safetensors, and nothing else', async (t) => {
  const options = fresh()
  const seen: number[] = []
  const folder = await downloadModel('owner/single', {
    ...options,
    onProgress: ({ bytes, totalBytes }) => seen.push(bytes / totalBytes),
  })
  t.same(filesIn(folder), ['config.json', 'model.safetensors', 'tokenizer.json'])
  t.equal(readFileSync(join(folder, 'model.safetensors'), 'utf8'), 'weights'.repeat(1000))
  t.equal(folder, join(options.cacheFolder!, 'models--owner--single', 'snapshots', COMMIT))
  t.equal(seen.at(-1), 1)
  t.ok(seen.every((part, i) => part > 0 && part >= (seen[i - 1] ?? 0)))

  asked.length = 0
  t.equal(await downloadModel('owner/single', options), folder)
  t.notOk(
    asked.some((path) => path.includes('/resolve/')),
    'what is there is not downloaded again',
  )
  const sharded = await downloadModel('owner/sharded', fresh())
  t.same(filesIn(sharded), [
    'config.json',
    'model-00001-of-00002.safetensors',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
    'tokenizer.json',
  ])
})

t.test('without a network the cache is enough, and where it is not that is said', async (t) => {
  const gone = `http://127.0.0.1:${await closedPort()}`
  for (const name of ['owner/single', 'owner/sharded']) {
    const options = fresh()
    const folder = await downloadModel(name, options)
    t.equal(await downloadModel(name, { ...options, hubUrl: gone }), folder)
    t.equal(await downloadModel(name, { ...options, offline: true }), folder)
    t.equal(await downloadModel(name, { ...options, offline: true, revision: COMMIT }), folder)
  }
  await t.rejects(downloadModel('owner/single', { ...fresh(), hubUrl: gone }), {
    code: 'NETWORK',
    message:
      /Cannot download owner\/single: .*ECONNREFUSED.*there is no folder owner\/single here either\. Connect to the network, or name a folder/,
  })
  await t.rejects(downloadModel('owner/single', { ...fresh(), offline: true }), {
    code: 'NETWORK',
    message: /switched off/,
  })
  await t.rejects(downloadModel('owner/down', fresh()), { code: 'NETWORK' })
  const options = fresh()
  const folder = await downloadModel('owner/sharded', options)
  writeFileSync(join(folder, 'model.safetensors.index.json'), '{"weight_map":{"a":"model-00003-of-00003.safetensors"}}')
  await t.rejects(
    downloadModel('owner/sharded', { ...options, offline: true }),
    { code: 'NETWORK' },
    'a shard is missing',
  )
})

t.test('without a network a model is used if all is there that the hub has listed', async (t) => {
  const options = fresh()
  const offline = { ...options, offline: true }
  const folder = await downloadModel('owner/single', options)
  const lists = join(folder, '../../dp-moe-listings')
  t.same(filesIn(lists), [`${COMMIT}.json`])
  rmSync(join(folder, 'tokenizer.json'))
  await t.rejects(downloadModel('owner/single', offline), {
    code: 'NETWORK',
    message: /switched off, and the cache lacks tokenizer\.json \(2 bytes\)/,
  })
  await downloadModel('owner/single', options)
  truncateSync(join(folder, 'model.safetensors'), 10)
  await t.rejects(downloadModel('owner/single', offline), { message: /holds 10 of 7000 bytes of model\.safetensors/ })
  await downloadModel('owner/single', options)
  t.equal(readFileSync(join(folder, 'model.safetensors'), 'utf8').length, 7000)
  rmSync(lists, { recursive: true })
  rmSync(join(folder, 'tokenizer.json'))
  t.equal(await downloadModel('owner/single', offline), folder, 'as another program left it: its weights are there')
  rmSync(join(folder, 'model.safetensors'))
  await t.rejects(downloadModel('owner/single', offline), { code: 'NETWORK' })
})

t.test('what may be meant as a folder: that there is none is said', async (t) => {
  for (const [name, more, code] of [
    ['owner/nothing', {}, 'FILE_NOT_FOUND'],
    ['owner/secret', {}, 'FILE_ACCESS'],
    ['owner/down', {}, 'NETWORK'],
    ['owner/single', { offline: true }, 'NETWORK'],
  ] as const) {
    const message = new RegExp(`there is no folder ${name} here either`)
    await t.rejects(downloadModel(name, { ...fresh(), ...more }), { code, message }, name)
  }
})

t.test('what is refused', async (t) => {
  await t.rejects(downloadModel('owner/pickled', fresh()), {
    code: 'MODEL_FORMAT',
    message: /pytorch_model\.bin, a format that can run any program when it is opened/,
  })
  await t.rejects(downloadModel('owner/empty', fresh()), {
    code: 'MODEL_FORMAT',
    message: /neither model\.safetensors/,
  })
  await t.rejects(downloadModel('owner/nothing', fresh()), { code: 'FILE_NOT_FOUND' })
  await t.rejects(downloadModel('owner/single', { ...fresh(), revision: 'v9' }), {
    code: 'FILE_NOT_FOUND',
    message: /v9/,
  })
  await t.rejects(downloadModel('owner/secret', fresh()), { code: 'FILE_ACCESS', message: /HF_TOKEN/ })
  for (const name of ['owner', 'a/b/c', '../x', 'owner/..', 'owner/na me', '']) {
    await t.rejects(downloadModel(name, fresh()), { code: 'INVALID_ARGUMENT' }, name)
  }
  await t.rejects(downloadModel('owner/single', { ...fresh(), revision: '../../x' }), { code: 'INVALID_ARGUMENT' })
})

t.test('a file with another checksum is not kept', async (t) => {
  for (const [name, file] of [
    ['owner/changed', 'model.safetensors'],
    ['owner/config-changed', 'config.json'],
  ] as const) {
    const options = fresh()
    await t.rejects(downloadModel(name, options), { code: 'MODEL_FORMAT', message: /another checksum/ })
    const folder = join(options.cacheFolder!, `models--${name.replace('/', '--')}`, 'snapshots', COMMIT)
    t.notOk(
      filesIn(folder).some((path) => path.startsWith(file)),
      'neither the file nor a part of it',
    )
    t.notOk(existsSync(join(folder, '../../refs/main')))
  }
})

t.test('a body without end is cut where the stated size is passed', async (t) => {
  const options = fresh()
  await t.rejects(downloadModel('owner/endless', options), { code: 'MODEL_FORMAT', message: /more than 7 bytes/ })
  t.ok(taken < 2 ** 24, `${taken} bytes of it were taken`)
  const folder = join(options.cacheFolder!, 'models--owner--endless', 'snapshots', COMMIT)
  t.same(filesIn(folder), ['config.json', 'tokenizer.json'])
})

t.test('weights that are gone when their turn comes: the reason is told', async (t) => {
  await t.rejects(downloadModel('owner/gone', fresh()), { code: 'NETWORK', message: /Entry not found|404/ })
})

t.test('two downloads of one model at once, one of them stopped', async (t) => {
  const options = fresh()
  const path = join(options.cacheFolder!, 'models--owner--slow', 'snapshots', COMMIT, 'model.safetensors')
  const stop = new AbortController()
  const first = downloadModel('owner/slow', options)
  while (held.length < 1) await setTimeout(5)
  const second = downloadModel('owner/slow', { ...options, signal: stop.signal })
  while (held.length < 2) await setTimeout(5)
  held[0]!()
  await first
  t.equal(readFileSync(path, 'utf8'), 'weights')
  stop.abort()
  await t.rejects(second, { code: 'ABORTED' })
  t.equal(readFileSync(path, 'utf8'), 'weights', 'the file of the other one is whole')
  t.same(filesIn(dirname(path)), ['config.json', 'model.safetensors', 'tokenizer.json'])
})

t.test('a download can be stopped', async (t) => {
  const stop = new AbortController()
  const options = { ...fresh(), signal: stop.signal, onProgress: () => stop.abort() }
  await t.rejects(downloadModel('owner/single', options), { code: 'ABORTED' })
  const before = { ...fresh(), signal: AbortSignal.abort() }
  await t.rejects(downloadModel('owner/single', before), { code: 'ABORTED' })
  await t.rejects(
    downloadModel('owner/single', { ...options, offline: true }),
    { code: 'NETWORK' },
    'nothing half there',
  )
})

t.test('a folder is itself', async (t) => {
  t.equal(await modelFolder(root), root)
  t.equal(isHubName('owner/name'), true)
  t.equal(isHubName('./owner/name'), false)
  t.equal(isHubName('lib/hub'), false, 'a folder of that name')
})
