import { addon } from '../../lib/engine/addon.js'
import { DpMoeError } from '../../lib/errors.js'
import { train } from '../../lib/train/train.js'

/**
 * Trains with the options of its argument (JSON) and talks in lines: `ready`, the number of each step that was made, then
 * the result or the error as JSON. Keys drawn from the operating system are said too, which only a test may do.
 */
const native = addon()
const draw = native.randomKey
native.randomKey = () => {
  const key = draw()
  say({ key: Buffer.from(key).toString('hex') })
  return key
}

say('ready')
try {
  const options = JSON.parse(process.argv[2]!)
  say({ result: await train({ ...options, onProgress: ({ step }) => say(step - 1) }) })
} catch (error) {
  const code = error instanceof DpMoeError ? error.code : undefined
  say({ error: String(error), code })
}

function say(line: unknown): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
