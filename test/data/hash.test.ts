import t from 'tap'
import { fnv1a, mixBits } from '../../lib/data/index.js'

const bytes = (text: string) => new TextEncoder().encode(text)

t.test('fnv1a gives the published test vectors of FNV-1a 32', async (t) => {
  const vectors: [string, number][] = [
    ['', 0x811c9dc5],
    ['a', 0xe40c292c],
    ['b', 0xe70c2de5],
    ['fo', 0x6222e842],
    ['foobar', 0xbf9cf968],
    ['chongo was here!\n', 0xd49930d5],
  ]
  for (const [text, hash] of vectors) t.equal(fnv1a(bytes(text)), hash, JSON.stringify(text))
  t.equal(fnv1a(bytes('bar'), fnv1a(bytes('foo'))), 0xbf9cf968, 'a hash can be continued')
})

t.test('mixBits is the finaliser of MurmurHash3: its hash of no bytes is mixBits(seed)', async (t) => {
  t.equal(mixBits(0), 0)
  t.equal(mixBits(1), 0x514e28b7)
  t.equal(mixBits(0xffffffff), 0x81f16f39)
})
