import { DpMoeError } from '../../lib/errors.js'
import { RunFolder } from '../../lib/train/run-folder.js'

/** Makes a run and says what came of it. */
try {
  await RunFolder.create(process.argv[2]!)
  console.log('{}')
} catch (error) {
  const { code, message } = error as DpMoeError
  console.log(JSON.stringify({ code, message, isOurs: error instanceof DpMoeError }))
}
