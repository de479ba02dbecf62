import type { Tensor } from '../engine/tensor.js'
import type { GradientSink } from './sinks.js'
import type { Tape } from './tape.js'

/** Part of a forward pass: what it makes of inputs that it closes over. It runs several times with the same result. */
export type CheckpointBody = (tape: Tape, isFirst: boolean) => readonly (Tensor | undefined)[]

/**
 * Runs a part of a forward pass and keeps its inputs and outputs alone; backward runs it once more for what it needs
 * (activation checkpointing, arXiv 1604.06174). All sums are those of the plain pass, bit for bit: `body` must draw its
 * random numbers by key. `inputs` are the tensors it reads whose gradients may be wanted.
 *
 * A sink that needs gradient sites twice, as clipping does, has the part run a third time instead of keeping them.
 */
export function checkpoint(
  tape: Tape,
  inputs: readonly Tensor[],
  body: CheckpointBody,
): readonly (Tensor | undefined)[] {
  const { device, sink } = tape
  if (!sink) return device.scope(() => body(tape, true))
  const watched = inputs.filter((input) => tape.tracks(input))
  const first = tape.part({ records: false })
  for (const input of watched) first.watch(input)
  const outputs = device.scope(() => body(first, true))
  const places = outputs.flatMap((output, place) => (output && first.tracks(output) ? [place] : []))
  if (places.length === 0) return outputs

  const backward = (gradients: readonly (Tensor | undefined)[]) => {
    const run = (partSink: GradientSink, wanted: readonly Tensor[]) =>
      device.scope(() => {
        const again = tape.part({ sink: partSink, releases: true })
        // Gradients are added one by one, in the order of the plain pass.
        for (const input of wanted) again.watch(input, tape.gradientOf(input))
        const made = body(again, false)
        again.backwardFrom(places.map((place, i) => [made[place]!, gradients[i]]))
        return { ofInputs: wanted.map((input) => again.gradientOf(input)), retained: again.retained }
      })
    let result: ReturnType<typeof run> | undefined
    const runsAgain = sink.addPart?.((partSink) => {
      const ofRun = run(partSink, result ? [] : watched)
      result ??= ofRun
    })
    const { ofInputs, retained } = result ?? run(sink, watched)
    tape.retain(retained)
    if (runsAgain) tape.retain([...inputs, ...gradients.filter((gradient) => gradient !== undefined)])
    watched.forEach((input, i) => {
      const gradient = ofInputs[i]
      if (gradient) tape.replaceGradient(input, gradient)
    })
  }
  tape.recordTracked(
    places.map((place) => outputs[place]!),
    backward,
  )
  return outputs
}
