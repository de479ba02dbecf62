#!/usr/bin/env node
import { failureLine } from './failure.js'
import { finish, ignoreClosedPipes, warn } from './output.js'
import { runCommandLine } from './program.js'

ignoreClosedPipes()
process.on('uncaughtException', (error) => {
  warn(failureLine(error, process.argv.includes('--debug')))
  process.exit(1)
})

const exitCode = await runCommandLine(process.argv.slice(2))
await finish(exitCode)
