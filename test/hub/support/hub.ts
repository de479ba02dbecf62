import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export const COMMIT = '0123456789abcdef0123456789abcdef01234567'

type Content = string | Buffer

/** A data set as the hub serves it; a file may be sent with another content than it is announced with. */
export interface Served {
  readonly files: Readonly<Record<string, Content>>
  readonly sent?: Readonly<Record<string, Content>>
  readonly status?: number
}

/** A hub of data sets on this machine. */
export class LocalHub {
  /** Paths of all requests. */
  readonly asked: string[] = []
  readonly #server: Server

  private constructor(datasets: Readonly<Record<string, Served>>) {
    this.#server = createServer((request, response) => {
      const url = new URL(request.url!, 'http://localhost')
      this.asked.push(url.pathname)
      const json = (value: unknown, status = 200) => {
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
      }
      const info = /^\/api\/datasets\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)/.exec(url.pathname)
      const file = /^\/datasets\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname)
      const dataset = datasets[(info ?? file)?.[1] ?? '']
      if (!dataset) return json({ error: 'Repository not found' }, 404)
      if (dataset.status) return json({ error: 'no' }, dataset.status)
      if (info?.[2] === 'revision') {
        if (!['main', COMMIT].includes(decodeURIComponent(info[3]!))) return json({ error: 'Revision not found' }, 404)
        return json({ _id: '1', id: info[1], sha: COMMIT, private: false, downloads: 0, likes: 0, gated: false })
      }
      if (info) {
        if (url.searchParams.get('recursive') !== 'true') return json([])
        return json(Object.entries(dataset.files).map(([path, content]) => entryOf(path, Buffer.from(content))))
      }
      const path = decodeURIComponent(file![3]!)
      const content = dataset.sent?.[path] ?? dataset.files[path]
      if (content === undefined) return json({ error: 'Entry not found' }, 404)
      const bytes = Buffer.from(content)
      const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '')
      const part = range ? bytes.subarray(Number(range[1]), Number(range[2]) + 1) : bytes
      const headers: Record<string, string> = { 'content-length': String(part.length), etag: '"1"' }
      if (range) headers['content-range'] = `bytes ${range[1]}-${range[2]}/${bytes.length}`
      response.writeHead(range ? 206 : 200, headers).end(part)
    })
  }

  static async start(datasets: Readonly<Record<string, Served>>): Promise<LocalHub> {
    const hub = new LocalHub(datasets)
    await new Promise<void>((listening) => hub.#server.listen(0, '127.0.0.1', listening))
    return hub
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  stop(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}

function entryOf(path: string, content: Buffer) {
  const size = content.byteLength
  const oid = createHash('sha1').update(`blob ${size}\0`).update(content).digest('hex')
  if (!path.endsWith('.parquet')) return { type: 'file', path, size, oid }
  const lfs = { oid: createHash('sha256').update(content).digest('hex'), size, pointerSize: 100 }
  return { type: 'file', path, size, oid: '0'.repeat(40), lfs }
}
