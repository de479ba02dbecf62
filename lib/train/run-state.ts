import type { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import type { TensorSource } from '../models/safetensors.js'
import type { Module } from '../nn/module.js'
import type { Optimizer } from '../optim/optimizer.js'
import { fingerprint } from '../privacy/fingerprint.js'
import type { RunKey } from '../privacy/keys.js'
import type { Ledger } from '../privacy/ledger.js'
import type { CheckpointFacts, CheckpointStore } from './checkpoint.js'

/** Everything a checkpoint is made from and put back into. */
export interface RunState {
  readonly device: Device
  readonly model: Module
  readonly optimizer: Optimizer
  readonly key: RunKey
  readonly secret: Uint8Array
  readonly configurationFingerprint: string
  readonly ledger: Ledger | undefined
  readonly store: CheckpointStore
  /** The error that says what of this run differs from the one to resume. */
  differing(what: string): Promise<DpMoeError>
}

/**
 * Writes a checkpoint from which step `nextStep` comes next. Frozen parameters are made again from their seed.
 *
 * @throws DpMoeError INVALID_ARGUMENT when weights are no longer finite: a run that diverged ends here, without a release.
 *   Weights are what privacy covers, so this says nothing about the data that they do not
 */
export async function saveCheckpoint(state: RunState, nextStep: number): Promise<void> {
  const { key, ledger, optimizer } = state
  const { updates, tensors } = optimizer.snapshot()
  const facts: CheckpointFacts = {
    nextStep,
    updates,
    key: key.source,
    keyFingerprint: keyFingerprint(state),
    configurationFingerprint: state.configurationFingerprint,
    ledger: ledger ? ledger.position : null,
    extra: {},
  }
  const parameters = new Map<string, TensorSource>()
  for (const parameter of state.model.trainableParameters()) {
    parameters.set(parameter.name, finiteWeights(parameter, nextStep))
  }
  const optimizerTensors = new Map<string, TensorSource>()
  for (const [name, tensor] of tensors) optimizerTensors.set(name, source(tensor))
  await state.store.save(facts, { parameters, optimizer: optimizerTensors })
}

/**
 * Puts the newest sound checkpoint back and returns the step to make next: 0 when none was written yet.
 *
 * @throws DpMoeError CHECKPOINT_DAMAGED when none loads, INVALID_ARGUMENT when key or configuration are not those of the run
 */
export async function loadCheckpoint(state: RunState, warn: (text: string) => void): Promise<number> {
  const { checkpoint, damaged } = await state.store.load()
  for (const { path, reason } of damaged) warn(`Passed over the checkpoint ${path}: ${reason}`)
  if (!checkpoint) return 0
  await using open = checkpoint
  const { facts } = open
  const isOfThisKey = facts.key === state.key.source && (facts.keyFingerprint ?? '') === (keyFingerprint(state) ?? '')
  if (!isOfThisKey) throw await state.differing('key')
  if (facts.configurationFingerprint !== state.configurationFingerprint) throw await state.differing('configuration')
  if (state.ledger && facts.ledger) await state.ledger.verifyContains(facts.ledger)
  for (const parameter of state.model.trainableParameters()) {
    const saved = open.parameters.get(parameter.name)
    if (!saved || `${saved.shape}` !== `${parameter.shape}`) {
      throw new DpMoeError(
        'CHECKPOINT_DAMAGED',
        `${open.path}: expected ${parameter.name} [${parameter.shape}], got none`,
      )
    }
    parameter.tensor.write(await saved.read())
  }
  const tensors = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const [name, saved] of open.optimizer) tensors.set(name, { shape: saved.shape, data: await saved.read() })
  state.optimizer.restore(facts.updates, tensors)
  return facts.nextStep
}

/** Tells on resume whether the same seed or key file is used; null for a key of the operating system. */
export function keyFingerprint({ key, secret }: Pick<RunState, 'key' | 'secret'>): string | null {
  return key.source === 'os' ? null : fingerprint(secret, key.bytes)
}

function finiteWeights({ name, tensor }: Parameter, step: number): TensorSource {
  const data = async () => {
    const weights = (await tensor.data()) as Float32Array
    if (weights.every(Number.isFinite)) return weights
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `The weights are no longer finite after ${step} steps (${name}): the run diverged. Start again with a lower learning rate`,
    )
  }
  return { dtype: 'F32', shape: tensor.shape, data }
}

function source(tensor: { shape: readonly number[]; data(): Promise<unknown> }): TensorSource {
  return { dtype: 'F32', shape: tensor.shape, data: async () => (await tensor.data()) as Float32Array }
}
