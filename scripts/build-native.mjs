// Builds the native addon into build/Release; `npm run build` and `npx dp-moe build` run it.
// Arguments go to cmake-js: a command (default `build`; `rebuild` starts anew) and options.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const minimumCmake = [3, 22]

/** The one thing to install, or undefined when the tools are there. */
function missingTool() {
  const cmake = spawnSync('cmake', ['--version'], { encoding: 'utf8' })
  const [major, minor] = (/version (\d+)\.(\d+)/.exec(cmake.stdout ?? '')?.slice(1) ?? []).map(Number)
  if (major === undefined || major < minimumCmake[0] || (major === minimumCmake[0] && minor < minimumCmake[1])) {
    const found = major === undefined ? 'none was found' : `found ${major}.${minor}`
    return `cmake ${minimumCmake.join('.')} or newer is needed, ${found} (Debian, Ubuntu: apt install cmake; Fedora: dnf install cmake; macOS: brew install cmake)`
  }
  if (['ninja', 'make'].every((tool) => spawnSync(tool, ['--version']).status !== 0)) {
    return 'make or ninja is needed (Debian, Ubuntu: apt install make; Fedora: dnf install make; macOS: xcode-select --install)'
  }
  const compilers = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']
  const program = '#include <concepts>\n#include <version>\ntemplate <std::integral T> T twice(T x) { return 2 * x; }\n'
  const compiles = compilers.some(
    (compiler) =>
      spawnSync(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], { input: program }).status === 0,
  )
  if (compiles) return undefined
  return 'a C++20 compiler is needed, gcc 11 or clang 14 or newer (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)'
}

const missing = missingTool()
if (missing) {
  console.error(`dp-moe: cannot build the native addon: ${missing}`)
  process.exit(1)
}
const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js')
const given = process.argv.slice(2)
const command = given[0]?.startsWith('-') === false ? given.shift() : 'build'
const { status } = spawnSync(process.execPath, [cmakeJs, command, '--directory', root, ...given], {
  stdio: 'inherit',
  env: { CMAKE_BUILD_PARALLEL_LEVEL: String(availableParallelism()), ...process.env },
})
process.exit(status ?? 1)
