import { lockFile } from '../../lib/privacy/file-lock.js'

/** Takes and releases the lock of a file until killed, and says when it has begun. */
for (let round = 0; ; round++) {
  const lock = await lockFile(process.argv[2]!)
  await lock.release()
  if (round === 0) process.stdout.write('begun\n')
}
