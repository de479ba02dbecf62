import { DpMoeError } from '../errors.js'
import type { Optimizer } from '../optim/optimizer.js'
import { fingerprint } from '../privacy/fingerprint.js'
import { keyOfRun, type RunKey } from '../privacy/keys.js'
import { Ledger } from '../privacy/ledger.js'
import { version } from '../version.js'
import { CheckpointStore } from './checkpoint.js'
import { type ConfiguredParts, configuration } from './configuration.js'
import { differences } from './differences.js'
import { MetricsLog } from './metrics.js'
import type { Say } from './options.js'
import type { PrivatePlan } from './private-plan.js'
import { RunFolder } from './run-folder.js'
import { keyFingerprint, loadCheckpoint, type RunState } from './run-state.js'

/** A run under way: its folder, ledger, metrics and the step to make next. */
export interface OpenRun {
  readonly folder: RunFolder
  /** undefined without privacy. */
  readonly ledger: Ledger | undefined
  readonly metrics: MetricsLog
  readonly state: RunState
  /** What sampling, noise and dropout of this run are drawn from. */
  readonly drawKey: RunKey
  readonly firstStep: number
  close(): Promise<void>
}

export interface OpenRunParts extends ConfiguredParts {
  readonly optimizer: Optimizer
  readonly say: Say
}

/** Makes a new run folder, or opens one to resume: the same configuration, data and key are asked for. */
export async function openRun(parts: OpenRunParts): Promise<OpenRun> {
  const { options, plan, key, encoded, device, model, optimizer } = parts
  const data = encoded.training
  const resume = options.resume ?? false
  const folder = resume
    ? await RunFolder.open(options.output)
    : await RunFolder.create(options.output, { overwrite: options.overwrite ?? false })
  const secret = folder.secret
  const configured = configuration(parts)
  const configurationFingerprint = fingerprint(secret, configured)
  const dataFingerprint = fingerprint(secret, data.fingerprint())
  let ledger: Ledger | undefined
  try {
    if (resume) await requireResumable(folder, plan !== undefined)
    if (!resume) await folder.writeConfiguration(configured)
    ledger = plan && (await openLedger(parts, folder, plan, configurationFingerprint, dataFingerprint))
    if (resume) await folder.removeTemporaries()
    const store = new CheckpointStore(folder.checkpointsFolder)
    const state: RunState = {
      device,
      model,
      optimizer,
      key,
      secret,
      configurationFingerprint,
      ledger,
      store,
      differing: (what) => differing(parts, folder, what),
    }
    const firstStep = resume ? await goOn(state, parts.say) : 0
    const metrics = await MetricsLog.open(folder.metricsFile, firstStep)
    const close = async () => {
      try {
        await metrics.close()
      } finally {
        await ledger?.close()
        // A run that failed before its first update gave nothing away, and there is nothing to go on from.
        if (!resume && optimizer.updates === 0 && (await store.isEmpty())) await folder.discard()
      }
    }
    const drawKey = keyOfRun(key, { configured, data: data.fingerprint() })
    return { folder, ledger, metrics, state, drawKey, firstStep, close }
  } catch (error) {
    await ledger?.close()
    // Nothing was spent; what went wrong first is what is told, even if the folder cannot be removed either.
    if (!resume) await folder.discard().catch(() => {})
    throw error
  }
}

/** Puts the last checkpoint back and returns the step to make next. */
async function goOn(state: RunState, say: Say): Promise<number> {
  const { ledger, key } = state
  const checkpointStep = await loadCheckpoint(state, say('warning'))
  const from = checkpointStep === 0 ? 'the first weights' : `the checkpoint of step ${checkpointStep}`
  const lost = ledger && key.source === 'os' ? ledger.steps - checkpointStep : 0
  if (lost === 0) say('info')(`goes on from ${from}`)
  else say('warning')(`goes on from ${from}; steps that were spent since, and whose updates are lost: ${lost}`)
  if (!ledger || key.source !== 'os') return checkpointStep
  // A fresh key: steps recorded after the checkpoint stay spent, and numbering goes on behind them.
  if (!ledger.summary.ended) await ledger.beginSegment(checkpointStep, `dp-moe ${version}`)
  return ledger.steps
}

/** A run without a ledger made no private step, and one with a ledger is private: neither goes on as the other. */
async function requireResumable(folder: RunFolder, isPrivate: boolean): Promise<void> {
  const hasLedger = await folder.hasLedger()
  if (isPrivate && !hasLedger) {
    throw refusal(
      `${folder.path} has no ledger: the run in it was stopped before its first step, or is not private. Start it again ` +
        '(--overwrite)',
    )
  }
  if (!isPrivate && hasLedger) {
    throw refusal(`The run in ${folder.path} is private and goes on only as that; give the same options`)
  }
  if (!isPrivate && (await folder.hasRelease())) throw complete(folder)
}

/** What is said where something differs from the run to resume: of its configuration, what of it as well. */
async function differing(parts: OpenRunParts, folder: RunFolder, what: string): Promise<DpMoeError> {
  const { options, key } = parts
  const noted = what === 'configuration' ? await folder.readConfiguration() : undefined
  const found = noted === undefined ? '' : differences(noted, configuration(parts))
  return refusal(
    `The ${what} differs from that of the run in ${options.output}${found && ` (${found})`}; resume with the same options ` +
      `and files${key.source === 'file' ? ', on the same kind of processor' : ''}, or start a new run`,
  )
}

const refusal = (message: string) => new DpMoeError('INVALID_ARGUMENT', message)

const complete = ({ path }: RunFolder) => refusal(`The run in ${path} is complete; there is nothing to resume`)

async function openLedger(
  parts: OpenRunParts,
  folder: RunFolder,
  plan: PrivatePlan,
  configurationFingerprint: string,
  dataFingerprint: string,
): Promise<Ledger> {
  const { options, key } = parts
  const keyMark = keyFingerprint({ key, secret: folder.secret })
  if (!options.resume) {
    return Ledger.create(folder.ledgerFile, {
      key: key.source,
      noiseMultiplier: plan.noiseMultiplier,
      sampleRate: plan.sampleRate,
      plannedSteps: plan.steps,
      relation: plan.relation,
      configurationFingerprint,
      dataFingerprint,
      ...(keyMark !== null && { keyFingerprint: keyMark }),
      software: `dp-moe ${version}`,
    })
  }
  const ledger = await Ledger.open(folder.ledgerFile)
  const { run, ended } = ledger.summary
  const differs =
    run.key !== key.source || (run.keyFingerprint ?? null) !== keyMark
      ? 'key'
      : run.configurationFingerprint !== configurationFingerprint
        ? 'configuration'
        : run.dataFingerprint !== dataFingerprint
          ? 'training data'
          : undefined
  const isComplete = ended && (await folder.hasRelease())
  if (!isComplete && !differs) return ledger
  await ledger.close()
  throw isComplete ? complete(folder) : await differing(parts, folder, differs!)
}
