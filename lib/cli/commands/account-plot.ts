import {
  type Accountant,
  type AccountantName,
  createAccountant,
  type DpEvent,
  type NeighboringRelation,
  PldAccountant,
} from '../../accounting/index.js'
import { replaceFile, withFileErrors } from '../../files.js'
import { shortNumber } from '../output.js'

/** What is drawn: a run of `steps` steps, of which the first k cost what `eventAt(k)` costs. */
export interface PlotSubject {
  readonly accountant: AccountantName
  readonly relation: NeighboringRelation
  readonly delta: number
  readonly steps: number
  readonly eventAt: (steps: number) => DpEvent
}

type Point = readonly [x: number, y: number]

/** Bracket of the accountant that draws: its curves are still upper bounds. */
const TOLERANCE = 1e-2
const POINTS = 24
/** Smallest false positive rate that is drawn. */
const LEAST_RATE = 1e-6

/** Writes epsilon over steps and the trade-off curve as one SVG file. Both are upper bounds. */
export async function plotAccount(path: string, subject: PlotSubject): Promise<void> {
  const svg = drawAccount(subject)
  await withFileErrors('write', path, () => replaceFile(path, svg))
}

/** The same as text. */
export function drawAccount(subject: PlotSubject): string {
  const curve = epsilonOverSteps(subject)
  const tradeOff = tradeOffPoints(fresh(subject).compose(subject.eventAt(subject.steps)))
  const most = Math.max(...curve.map(([, epsilon]) => epsilon), 1e-12)
  const left = panel({
    left: 80,
    title: `epsilon over steps, at delta ${shortNumber(subject.delta)}`,
    axes: ['steps', 'epsilon (upper bound)'],
    ticks: [
      [0, 0.5, 1].map((share) => [share, shortNumber(Math.round(share * subject.steps))]),
      [0, 0.5, 1].map((share) => [share, shortNumber(share * most)]),
    ],
    lines: [curve.map(([steps, epsilon]) => [steps / Math.max(1, subject.steps), epsilon / most])],
  })
  const decades = Math.round(-Math.log10(LEAST_RATE))
  const position = (rate: number) => Math.max(0, 1 + Math.log10(Math.max(rate, LEAST_RATE)) / decades)
  const powers = Array.from({ length: decades + 1 }, (_, i): [number, string] => [i / decades, `1e${i - decades}`])
  const right = panel({
    left: 540,
    title: 'what an attack on membership can reach',
    axes: ['false positive rate', 'true positive rate (upper bound)'],
    ticks: [powers, powers],
    lines: [
      tradeOff.map(([falsePositives, truePositives]) => [position(falsePositives), position(truePositives)]),
      [
        [0, 0],
        [1, 1],
      ],
    ],
  })
  return [
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 420" font-family="sans-serif" font-size="12">',
    '<rect width="960" height="420" fill="white"/>',
    left,
    right,
    `<text x="80" y="412">accountant ${subject.accountant}, relation ${subject.relation}</text>`,
    '</svg>\n',
  ].join('\n')
}

function fresh({ accountant, relation }: PlotSubject): Accountant {
  return accountant === 'pld'
    ? new PldAccountant({ relation, tolerance: TOLERANCE })
    : createAccountant(accountant, relation)
}

function epsilonOverSteps(subject: PlotSubject): Point[] {
  const counts = new Set([0, 1].filter((count) => count <= subject.steps))
  for (let i = 1; i <= POINTS; i++) counts.add(Math.round((i / POINTS) * subject.steps))
  const points = [...counts]
    .sort((a, b) => a - b)
    .map((steps): Point => {
      return [steps, fresh(subject).compose(subject.eventAt(steps)).epsilon(subject.delta).epsilon]
    })
  return points.filter(([, epsilon]) => Number.isFinite(epsilon))
}

/** Any (epsilon, delta) bounds the true positives by e^epsilon fpr + delta and by 1 - e^-epsilon (1 - delta - fpr). */
function tradeOffPoints(accountant: Accountant): Point[] {
  const guarantees = [0, ...Array.from({ length: POINTS }, (_, i) => 0.02 * 1.45 ** i)].map((epsilon) => {
    return { epsilon, delta: accountant.delta(epsilon).delta }
  })
  return Array.from({ length: 61 }, (_, i): Point => {
    const rate = LEAST_RATE ** (1 - i / 60)
    const bounds = guarantees.flatMap(({ epsilon, delta }) => [
      Math.exp(epsilon) * rate + delta,
      1 - Math.exp(-epsilon) * (1 - delta - rate),
    ])
    return [rate, Math.max(rate, Math.min(1, ...bounds))]
  })
}

interface Panel {
  readonly left: number
  readonly title: string
  readonly axes: readonly [string, string]
  /** Places in [0, 1] and their labels, of either axis. */
  readonly ticks: readonly (readonly (readonly [number, string])[])[]
  /** Points in the unit square; the second line is a dashed reference. */
  readonly lines: readonly (readonly Point[])[]
}

const SIZE = { width: 360, height: 300, top: 50 }

function panel({ left, title, axes, ticks, lines }: Panel): string {
  const { width, height, top } = SIZE
  const x = (share: number) => (left + share * width).toFixed(1)
  const y = (share: number) => (top + (1 - share) * height).toFixed(1)
  return [
    `<text x="${x(0.5)}" y="30" text-anchor="middle" font-size="14">${title}</text>`,
    `<rect x="${left}" y="${top}" width="${width}" height="${height}" fill="none" stroke="black"/>`,
    ...ticks[0]!.map(
      ([at, label]) => `<text x="${x(at)}" y="${top + height + 16}" text-anchor="middle">${label}</text>`,
    ),
    ...ticks[1]!.map(([at, label]) => `<text x="${left - 6}" y="${y(at)}" text-anchor="end">${label}</text>`),
    `<text x="${x(0.5)}" y="${top + height + 36}" text-anchor="middle">${axes[0]}</text>`,
    `<text transform="translate(${left - 62} ${y(0.5)}) rotate(-90)" text-anchor="middle">${axes[1]}</text>`,
    ...lines.map((line, i) => {
      const points = line.map(([at, height]) => `${x(at)},${y(height)}`).join(' ')
      const style = i === 0 ? 'stroke="#1f5fa8" stroke-width="2"' : 'stroke="gray" stroke-dasharray="4 4"'
      return `<polyline points="${points}" fill="none" ${style}/>`
    }),
  ].join('\n')
}
