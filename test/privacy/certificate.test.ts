import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type Certificate,
  type CertificateFacts,
  createCertificate,
  createNonPrivateStatement,
  readCertificate,
  writeCertificate,
} from '../../lib/privacy/certificate.js'

const software = { name: 'dp-moe', version: '0.1.0' }

const facts: CertificateFacts = {
  unit: 'example',
  relation: 'zero-out',
  noiseMultiplier: 1.3,
  sampleRate: 0.1,
  expectedBatchSize: 474,
  maxGradNorm: 1,
  clipping: 'flat',
  plannedSteps: 100,
  steps: 101,
  delta: 1e-5,
  epsilon: 2.98,
  accountant: { name: 'pld', bound: 'upper', tolerance: 1e-3 },
  releases: [{ name: 'gradient', bound: 1, weight: 1 }],
  publicConstants: { examples: 4740, labels: ['ham', 'spam'], maximumLength: 256 },
  seeded: false,
  software,
  ledgerHash: 'a'.repeat(64),
}

t.test('states the fields of the schema, and no others', async (t) => {
  const path = join(t.testdir(), 'certificate.json')
  await writeCertificate(path, createCertificate(facts))
  const { notCovered, ...stated } = JSON.parse(readFileSync(path, 'utf8'))
  t.strictSame(stated, { schema: 'dp-moe-certificate-1', mechanism: 'poisson-subsampled-gaussian', ...facts })
  const read = (await readCertificate(path)) as Certificate
  t.strictSame(read, { ...stated, notCovered })
})

t.test('says what is not covered', async (t) => {
  const { notCovered } = createCertificate({ ...facts, notCovered: ['Something of this run.'] })
  for (const subject of [/^Hyper-parameter search/, /^Floating-point/, /^Something of this run/]) {
    t.ok(notCovered.some((sentence) => subject.test(sentence)))
  }
  t.notMatch(notCovered.join(), /seeded/)
})

t.test('a seeded run says in words that it is not private', async (t) => {
  const path = join(t.testdir(), 'certificate.json')
  const certificate = createCertificate({ ...facts, seeded: true })
  t.match(certificate.notCovered[0], /^seeded: not private/)
  const silent = { ...certificate, notCovered: certificate.notCovered.slice(1) }
  await t.rejects(writeCertificate(path, silent), { code: 'INVALID_ARGUMENT', message: /sentence of a seeded run/ })
  t.notOk(existsSync(path))
  writeFileSync(path, JSON.stringify(silent))
  await t.rejects(readCertificate(path), { code: 'MODEL_FORMAT', message: /seeded run and does not say so/ })
})

t.test('what cannot be certified', async (t) => {
  const refused: [Partial<CertificateFacts>, RegExp][] = [
    [{ noiseMultiplier: 0 }, /noiseMultiplier/],
    [{ epsilon: Infinity }, /epsilon/],
    [{ epsilon: Number.NaN }, /epsilon/],
    [{ epsilon: -0.1 }, /epsilon/],
    [{ delta: 0 }, /delta/],
    [{ delta: 1 }, /delta/],
    [{ sampleRate: 1.5 }, /sampleRate/],
    [{ steps: 1.5 }, /steps/],
    [{ releases: [] }, /releases/],
    [{ releases: [{ name: 'gradient', bound: 1, weight: 0.9 }] }, /weights with sum 1/],
    [{ ledgerHash: 'none' }, /ledgerHash/],
    [{ accountant: { name: 'pld', bound: 'upper', tolerance: 0 } }, /tolerance/],
  ]
  for (const [change, message] of refused) {
    t.throws(() => createCertificate({ ...facts, ...change }), { code: 'INVALID_ARGUMENT', message })
  }
  const weights = [1 / 1.02, 0.02 / 1.02]
  t.ok(
    createCertificate({ ...facts, releases: weights.map((weight, i) => ({ name: `release ${i}`, bound: 1, weight })) }),
  )
})

t.test('a run without privacy names no epsilon', async (t) => {
  const path = join(t.testdir(), 'certificate.json')
  const statement = createNonPrivateStatement(software)
  await writeCertificate(path, statement)
  const read = await readCertificate(path)
  t.same(read, statement)
  t.match(read, { mechanism: 'none', statement: /^non-private: .*without differential privacy/ })
  t.notMatch(readFileSync(path, 'utf8'), /epsilon|delta|noise/)
})

t.test('a certificate that is damaged or foreign', async (t) => {
  const path = join(t.testdir(), 'certificate.json')
  const certificate = createCertificate(facts)
  const cases: [string, RegExp][] = [
    ['', /is not JSON/],
    ['{"epsilon":1}', /mechanism/],
    ['[]', /not a certificate/],
    [JSON.stringify({ ...certificate, schema: 'dp-moe-certificate-9' }), /schema/],
    [JSON.stringify({ ...certificate, epsilon: '0' }), /epsilon/],
    [JSON.stringify({ ...certificate, notCovered: undefined }), /notCovered/],
    [JSON.stringify({ ...certificate, blessing: true }), /blessing/],
    [JSON.stringify({ ...createNonPrivateStatement(software), epsilon: 1 }), /epsilon/],
  ]
  for (const [text, message] of cases) {
    writeFileSync(path, text)
    await t.rejects(readCertificate(path), { code: 'MODEL_FORMAT', message })
  }
  await t.rejects(readCertificate(`${path}.none`), { code: 'FILE_NOT_FOUND' })
})
