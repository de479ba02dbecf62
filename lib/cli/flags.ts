/**
 * The flags of a command as a table: the command line, its help and the keys of a configuration file are all made from it.
 */
export interface Flag<Value> {
  readonly kind:
    | 'text'
    | 'number'
    | 'integer'
    | 'integers'
    | 'switch'
    | 'list'
    | 'settings'
    | 'text-or-number'
    | 'choice'
  /** What stands for the value in the help; none for a switch. */
  readonly placeholder?: string
  readonly help: string
  /** The default in words. */
  readonly fallback?: string | undefined
  readonly choices?: readonly string[]
  /** Of settings: the name of a value that is given without one. */
  readonly bare?: string | undefined
  /** Heading in the help. */
  readonly group?: string
  /** Never present: carries the type of the value. */
  readonly type?: Value
}

export type Flags = Readonly<Record<string, Flag<unknown>>>

/** The values of a table of flags; those that were not given are missing. */
export type Values<F extends Flags> = { [K in keyof F]?: F[K] extends Flag<infer Value> ? Value : never }

export const text = (placeholder: string, help: string, fallback?: string): Flag<string> => ({
  kind: 'text',
  placeholder,
  help,
  fallback,
})

export const number = (placeholder: string, help: string, fallback?: string): Flag<number> => ({
  kind: 'number',
  placeholder,
  help,
  fallback,
})

export const integer = (placeholder: string, help: string, fallback?: string): Flag<number> => ({
  kind: 'integer',
  placeholder,
  help,
  fallback,
})

/** Whole numbers separated by commas; a list in a configuration file. */
export const integers = (placeholder: string, help: string, fallback?: string): Flag<number[]> => ({
  kind: 'integers',
  placeholder,
  help,
  fallback,
})

export const textOrNumber = (placeholder: string, help: string, fallback?: string): Flag<string | number> => ({
  kind: 'text-or-number',
  placeholder,
  help,
  fallback,
})

/** On when named. */
export const toggle = (help: string): Flag<boolean> => ({ kind: 'switch', help })

/** Names separated by commas; a list in a configuration file. */
export const list = (placeholder: string, help: string, fallback?: string): Flag<string[]> => ({
  kind: 'list',
  placeholder,
  help,
  fallback,
})

/** `name=value`, given any number of times; a map in a configuration file. */
export const settings = (
  placeholder: string,
  help: string,
  fallback?: string,
  bare?: string,
): Flag<Record<string, number | string | boolean>> => ({ kind: 'settings', placeholder, help, fallback, bare })

export const choice = <const Name extends string>(
  placeholder: string,
  choices: readonly Name[],
  help: string,
  fallback?: Name,
): Flag<Name> => ({ kind: 'choice', placeholder, choices, help: `${help}: ${choices.join(', ')}`, fallback })

/** Several of `choices`, separated by commas; a list in a configuration file. */
export const choices = <const Name extends string>(
  placeholder: string,
  choices: readonly Name[],
  help: string,
  fallback?: string,
): Flag<Name[]> => ({ kind: 'list', placeholder, choices, help: `${help}: ${choices.join(', ')}`, fallback })

/** Puts flags under a heading of the help. */
export function group<F extends Flags>(heading: string, flags: F): F {
  return Object.fromEntries(Object.entries(flags).map(([name, flag]) => [name, { ...flag, group: heading }])) as F
}

/** `maxGradNorm` -> `--max-grad-norm` */
export function flagName(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** `max-grad-norm` -> `maxGradNorm`; a name in camel case stays as it is. */
export function camelCase(name: string): string {
  return name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
