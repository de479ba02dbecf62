import { readFileSync } from 'node:fs'
import t from 'tap'
import { addon } from '../../lib/engine/addon.js'
import { activationCodes, signatures } from '../../lib/engine/signatures.js'

const include = new URL('../../native/include/', import.meta.url)
const backend = readFileSync(new URL('backend.h', include), 'utf8')
const params = readFileSync(new URL('params.h', include), 'utf8')

/** Field names of every parameter struct, in order. */
const structs = new Map(
  [...params.matchAll(/struct (\w+Params) \{\n([\s\S]*?)\n\};/g)].map(([, name, body]) => [
    name!,
    [...body!.matchAll(/^ {2}[\w<>]+ (\w+);$/gm)].map(([, field]) => field!),
  ]),
)
const ops = [...backend.matchAll(/virtual void (\w+)\(const (\w+)&\)/g)].map(
  ([, op, struct]) => [op!, struct!] as const,
)

/** A field kind as the addon names it. */
function nativeKind(kind: string): string[] {
  const [direction, dtype = 'float32'] = kind.replace('?', '').split(':')
  if (direction === 'input' || direction === 'output') return [`${direction}:${dtype}`]
  return kind === 'int' ? ['int64', 'int32'] : [kind]
}

t.test('the typed list has every op of the backend and no other', async (t) => {
  t.ok(ops.length > 40)
  t.strictSame(
    Object.keys(signatures),
    ops.map(([op]) => op),
  )
  t.strictSame(Object.keys(addon().signatures()).sort(), ops.map(([op]) => op).sort())
})

t.test('the fields of each op have the names and the order of its parameter struct', async (t) => {
  for (const [op, struct] of ops) {
    t.strictSame(Object.keys(signatures[op as keyof typeof signatures] ?? {}), structs.get(struct), op)
  }
})

t.test('the fields of each op have the kinds of the binding', async (t) => {
  const native = addon().signatures()
  for (const [op, fields] of Object.entries(signatures)) {
    const accepted = Object.entries(fields).map(([name, kind], i) => {
      const found = native[op]?.[i] ?? 'nothing'
      return `${name}: ${nativeKind(kind).includes(found) ? found : nativeKind(kind)}`
    })
    t.strictSame(
      accepted,
      Object.keys(fields).map((name, i) => `${name}: ${native[op]?.[i]}`),
      op,
    )
    t.equal(native[op]?.length, Object.keys(fields).length, op)
  }
})

t.test('activations have the numbers of the native enumeration', async (t) => {
  const body = /enum class Activation : int32_t \{([^}]*)\}/.exec(params)![1]!
  const native = Object.fromEntries([...body.matchAll(/(\w+) = (\d+)/g)].map(([, name, code]) => [name, Number(code)]))
  t.strictSame(activationCodes, native)
})
