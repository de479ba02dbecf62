#!/usr/bin/env node
// Stands in for node-gyp in prebuildify, which calls: <shim> rebuild --target=<node> --devdir=<dir> --arch=<arch> ...
// The addon uses Node-API only, so the Node version it names does not matter.
const { spawnSync } = require('node:child_process')
const { join } = require('node:path')

const arch = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length) ?? process.arch
const build = spawnSync(process.execPath, [join(__dirname, 'build-native.mjs'), '--arch', arch], { stdio: 'inherit' })
process.exit(build.status ?? 1)
