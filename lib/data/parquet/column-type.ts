import { isUtf8 } from 'node:buffer'
import type { SchemaElement } from 'hyparquet'
import type { StoredType, StoredValue } from './plain.js'

/** Stands for a string that is not valid UTF-8 or holds a NUL byte. */
export const NOT_TEXT = Symbol('not text')

/** A value as examples have it. Different values stored are different values here. */
export type ColumnValue = string | number | bigint | boolean | null | typeof NOT_TEXT

/** A column of single values: how they are stored and what they mean. */
export interface ColumnType extends StoredType {
  /** Whether values may be missing. */
  readonly optional: boolean
  readonly meaningOf: (stored: StoredValue) => ColumnValue
}

/** The type of a column, or a few words on what it is where it cannot be read without loss. */
export function columnType(element: SchemaElement, nested: boolean): ColumnType | string {
  if (nested || element.repetition_type === 'REPEATED') return 'a list or an object'
  const { type, type_length: typeLength } = element
  if (type === undefined) return 'of an unknown type'
  const meaningOf = meaning(element)
  if (typeof meaningOf === 'string') return meaningOf
  const optional = element.repetition_type === 'OPTIONAL'
  return { type, optional, meaningOf, ...(typeLength !== undefined && { typeLength }) }
}

function meaning(element: SchemaElement): ColumnType['meaningOf'] | string {
  const { type, logical_type: logical, converted_type: converted } = element
  const meant = logical?.type ?? converted
  if (meant === 'DECIMAL') return decimal(element)
  switch (type) {
    case 'BYTE_ARRAY':
      if (['STRING', 'UTF8', 'JSON', 'ENUM'].includes(meant ?? '')) return textOf
      return meant === undefined ? 'bytes without an encoding' : meant
    case 'FIXED_LEN_BYTE_ARRAY':
      return logical?.type === 'UUID' && element.type_length === 16 ? uuidOf : (meant ?? 'bytes')
    case 'INT32':
    case 'INT64':
      return integer(element)
    case 'BOOLEAN':
    case 'FLOAT':
    case 'DOUBLE':
      return meant ?? ((stored) => stored as boolean | number)
    default:
      return meant ?? type ?? 'of an unknown type'
  }
}

function integer({
  type,
  logical_type: logical,
  converted_type: converted,
}: SchemaElement): ColumnType['meaningOf'] | string {
  const meant = logical?.type ?? converted
  if (meant !== undefined && meant !== 'INTEGER' && !/^U?INT_/.test(meant)) return meant
  const signed = logical?.type === 'INTEGER' ? logical.isSigned : !converted?.startsWith('UINT_')
  const bits = type === 'INT32' ? 32 : 64
  return (stored) => (signed ? (stored as number | bigint) : BigInt.asUintN(bits, BigInt(stored as number | bigint)))
}

/** Decimals without digits after the point are integers, of any size. */
function decimal({ type, scale, logical_type: logical }: SchemaElement): ColumnType['meaningOf'] | string {
  const digits = logical?.type === 'DECIMAL' ? logical.scale : scale
  if ((digits ?? 0) !== 0) return 'DECIMAL with digits after the point'
  if (type === 'INT32' || type === 'INT64') return (stored) => stored as number | bigint
  if (type !== 'BYTE_ARRAY' && type !== 'FIXED_LEN_BYTE_ARRAY') return 'DECIMAL'
  return (stored) => {
    const hex = hexOf(stored)
    return hex === '' ? 0n : BigInt.asIntN(hex.length * 4, BigInt(`0x${hex}`))
  }
}

function textOf(stored: StoredValue): string | typeof NOT_TEXT {
  const bytes = stored as Buffer
  return isUtf8(bytes) && !bytes.includes(0) ? bytes.toString('utf8') : NOT_TEXT
}

function uuidOf(stored: StoredValue): string {
  return hexOf(stored).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

const hexOf = (stored: StoredValue) => (stored as Buffer).toString('hex')
