import { z } from 'zod'
import type { Flag, Flags } from './flags.js'

/**
 * The shape of a command's values, whether they come from flags (strings) or from a configuration file (YAML's types).
 * Only types are checked: which numbers are allowed is for the code that takes them to say.
 */
export function schemaOf(flags: Flags): z.ZodType<Record<string, unknown>> {
  return z.strictObject(
    Object.fromEntries(Object.entries(flags).map(([name, flag]) => [name, valueSchema(flag).optional()])),
  )
}

function valueSchema(flag: Flag<unknown>): z.ZodType {
  switch (flag.kind) {
    case 'text':
      return z.preprocess(numberAsText, z.string('expected a text').min(1, 'expected a text that is not empty'))
    case 'number':
      return z.preprocess(textAsNumber, z.number('expected a number'))
    case 'integer':
      return z.preprocess(textAsNumber, z.int('expected a whole number'))
    case 'integers':
      return z.preprocess(
        (value) =>
          typeof value === 'string' ? value.split(',').map(textAsNumber) : typeof value === 'number' ? [value] : value,
        z.array(z.int('expected whole numbers, such as 3,4,5'), 'expected whole numbers, such as 3,4,5'),
      )
    case 'switch':
      return z.boolean('expected true or false')
    case 'text-or-number':
      return z.preprocess(textAsNumber, z.union([z.number(), z.string().min(1)], 'expected a text or a number'))
    case 'choice':
      return z.enum(flag.choices as [string, ...string[]], `expected one of ${flag.choices!.join(', ')}`)
    case 'list':
      return z.preprocess(
        (value) =>
          typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value.map(scalarAsText) : value,
        flag.choices
          ? z.array(z.enum(flag.choices as [string, ...string[]], `expected some of ${flag.choices.join(', ')}`))
          : z.array(z.string('expected names, such as a,b'), 'expected names, such as a,b'),
      )
    case 'settings':
      return z.preprocess(
        (value) =>
          isTextArray(value) ? pairs(value, flag.bare) : typeof value === 'string' ? pairs([value], flag.bare) : value,
        z.record(
          z.string(),
          z.union([z.number(), z.boolean(), z.string()], 'expected name=value'),
          'expected name=value',
        ),
      )
  }
}

/** A number as people write it: no hexadecimal, no blanks, no Infinity. */
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i

function textAsNumber(value: unknown): unknown {
  return typeof value === 'string' && DECIMAL.test(value) ? Number(value) : value
}

/** A column or a file may be called 2024; YAML reads that as a number. */
function numberAsText(value: unknown): unknown {
  return typeof value === 'number' ? String(value) : value
}

function scalarAsText(value: unknown): unknown {
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : value
}

function isTextArray(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

/** `bare` is the name of what stands without one. */
function pairs(texts: readonly string[], bare: string | undefined): unknown {
  const entries = texts
    .flatMap((text) => text.split(','))
    .map((pair) => (bare !== undefined && !pair.includes('=') ? [bare, pair] : /^([^=]+)=(.+)$/.exec(pair)?.slice(1)))
  if (entries.includes(undefined)) return texts
  return Object.fromEntries((entries as [string, string][]).map(([name, value]) => [name, settingValue(value)]))
}

function settingValue(value: string): unknown {
  return value === 'true' ? true : value === 'false' ? false : textAsNumber(value)
}
