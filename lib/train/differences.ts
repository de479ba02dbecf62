/** How many differences are told. */
const MOST = 4

/** Longer values are not shown. */
const LONGEST = 60

/** What differs between two records of plain data, for people: `recipe.steps: 40, now 50`. */
export function differences(before: unknown, now: unknown): string {
  const [was, is] = [plain(before), plain(now)]
  // Damaged, or nothing to compare with.
  if (!isRecord(was) || !isRecord(is)) return ''
  const all = [...differing('', was, is)]
  return [...all.slice(0, MOST), ...(all.length > MOST ? [`and ${all.length - MOST} more`] : [])].join('; ')
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null))

function* differing(path: string, before: unknown, now: unknown): Generator<string> {
  if (isRecord(before) && isRecord(now)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(now)])) {
      yield* differing(path === '' ? name : `${path}.${name}`, before[name], now[name])
    }
    return
  }
  const [was, is] = [JSON.stringify(before) ?? 'not set', JSON.stringify(now) ?? 'not set']
  if (was === is) return
  yield was.length + is.length > LONGEST ? path : `${path}: ${was}, now ${is}`
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
