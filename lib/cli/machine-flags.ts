import type { DeviceName } from '../engine/device.js'
import { choice, type Flag, group, integer, text } from './flags.js'

/** Where a command runs; the same flags everywhere. */
export const machineFlags = group('Machine', {
  device: text('<name>', 'Where to run: cpu, cuda or cuda:N', 'cpu') as Flag<DeviceName>,
  precision: choice(
    '<type>',
    ['float32', 'bfloat16'],
    'What activations are stored in, bfloat16 on CUDA only',
    'float32',
  ),
  threads: integer('<n>', 'Threads of the CPU to use', 'what the machine or its container allows'),
})
