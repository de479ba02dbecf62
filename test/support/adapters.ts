import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '../../lib/engine/device.js'
import type { HuggingFaceModel } from '../../lib/models/hugging-face/hugging-face-model.js'
import { openModel } from '../../lib/models/open-model.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from '../../lib/models/safetensors.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { setTrainable } from '../../lib/nn/trainable.js'

const HEAD = /^(head|pooler)\./

/** A model with trained adapters: both halves are far from zero. */
export async function adaptedModel(device: Device, folder: string, rank = 2, alpha = 6): Promise<HuggingFaceModel> {
  const model = await openModel(device, folder)
  setTrainable(model, 'lora', new Initializer(device, 5), { head: HEAD, rank, alpha })
  for (const parameter of model.trainableParameters()) {
    const values = Float32Array.from({ length: parameter.size }, (_, i) => Math.sin(i + parameter.size) / 3)
    parameter.tensor.write(values)
  }
  return model
}

export type Tensors = Map<string, TensorSource>

export interface AdapterChange {
  readonly settings?: object
  readonly tensors?: (all: Tensors) => Tensors
  /** Default: that of the adapters. */
  readonly metadata?: Record<string, string>
}

/** Writes a copy of adapters with some of their tensors, settings or metadata changed. */
export async function changedAdapters(
  from: string,
  folder: string,
  { settings = {}, tensors = (all) => all, metadata }: AdapterChange,
): Promise<string> {
  cpSync(from, folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(from, 'adapter_config.json'), 'utf8'))
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...settings }))
  await using file = await SafetensorsFile.open(join(from, 'adapter_model.safetensors'))
  const all: Tensors = new Map()
  for (const [key, { dtype, shape }] of file.tensors) {
    all.set(key, { dtype, shape, data: await file.readFloat32(key) })
  }
  await writeSafetensors(join(folder, 'adapter_model.safetensors'), tensors(all), metadata ?? file.metadata)
  return folder
}
