import type { Breach, Evidence, Invariant, Verdict } from './checker.ts';
import type { FaultReport, Nemesis } from './nemesis.ts';
import { sabotageOf, type SabotageName } from './sabotage/sabotage.ts';

/** The outcome of a run, as it is printed. */
export interface TortureReport {
  readonly seed: number;
  readonly commits: number;
  readonly lost: number;
  readonly invented: number;
  readonly doubled: number;
  readonly reordered: number;
  readonly unseen: number;
  readonly staleWritesAttempted: number;
  readonly staleWritesAccepted: number;
  /** Messages that were handled, and whose transactions a failover then undid: that is known of asynchronous standbys. */
  readonly phantoms: readonly number[];
  readonly drained: boolean;
  readonly memoryMiB: number;
  /** Effects that were undone and done again, and how many there may have been. */
  readonly redelivered: number;
  readonly redeliveredLimit: number;
  /** The most that the slot held back. */
  readonly retainedWalBytes: number;
  readonly faults: Readonly<Record<string, FaultReport>>;
  /** Faults that could not be injected on this machine, and why. */
  readonly notAvailable: Readonly<Record<string, string>>;
  readonly sabotage: SabotageName | null;
  /** Whether the sabotage was found; `null` without one. */
  readonly caught: boolean | null;
  /** The broken invariant: that of the sabotage if it was found, else the first. */
  readonly invariant: Invariant | null;
  readonly breaches: readonly Breach[];
  /** Why nothing of this can be trusted. */
  readonly doubts: readonly string[];
  readonly ok: boolean;
}

/** What a run is judged by besides its evidence. */
interface Terms {
  readonly seed: number;
  readonly sabotage: SabotageName | undefined;
  readonly recoveryLimitMs: number | undefined;
}

export function reportOf(
  { seed, sabotage, recoveryLimitMs }: Terms,
  evidence: Pick<Evidence, 'drained' | 'memoryMiB' | 'phantoms' | 'redelivered' | 'redeliveredLimit' | 'server'>,
  verdict: Verdict,
  { reports: faults, missing: notAvailable }: Pick<Nemesis, 'reports' | 'missing'>,
): TortureReport {
  const { breaches, doubts, ...counts } = verdict;
  const broken = breaches.map(({ invariant }) => invariant);
  const expected = sabotage === undefined ? [] : sabotageOf(sabotage).breaks;
  const found = broken.find((invariant) => expected.includes(invariant));
  return {
    seed,
    ...counts,
    phantoms: evidence.phantoms,
    drained: evidence.drained,
    memoryMiB: Math.round(evidence.memoryMiB),
    redelivered: evidence.redelivered,
    redeliveredLimit: evidence.redeliveredLimit,
    retainedWalBytes: evidence.server.reduce((most, { retainedWalBytes }) => Math.max(most, retainedWalBytes), 0),
    faults,
    notAvailable,
    sabotage: sabotage ?? null,
    caught: sabotage === undefined ? null : found !== undefined && doubts.length === 0,
    invariant: found ?? broken[0] ?? null,
    breaches,
    doubts,
    ok:
      breaches.length === 0 &&
      doubts.length === 0 &&
      verdict.commits > 0 &&
      wereSeen(faults) &&
      recovered(faults, recoveryLimitMs),
  };
}

/** A fault that was injected and never seen to have an effect proves nothing. */
function wereSeen(faults: Readonly<Record<string, FaultReport>>): boolean {
  return Object.values(faults).every(({ injected, observed }) => injected === 0 || observed > 0);
}

function recovered(faults: Readonly<Record<string, FaultReport>>, limitMs: number = Infinity): boolean {
  return Object.values(faults).every(({ recoveryMs }) => recoveryMs === null || recoveryMs <= limitMs);
}

/** For people. */
export function describe(report: TortureReport): string {
  const { commits, lost, invented, doubled, reordered, unseen } = report;
  const rows = Object.entries(report.faults).map(
    ([name, { injected, observed, recoveryMs, duplicatesRefused }]) =>
      `  ${name.padEnd(24)} ${String(injected).padStart(3)} injected ${String(observed).padStart(3)} observed   recovered in ${recoveryMs ?? '-'} ms, ${duplicatesRefused} duplicates refused`,
  );
  return [
    `seed ${report.seed}: ${commits} commits, ${lost} lost, ${invented} invented, ${doubled} doubled, ${reordered} reordered, ${unseen} unseen`,
    `stale writes: ${report.staleWritesAttempted} attempted, ${report.staleWritesAccepted} accepted; phantoms of failovers: ${report.phantoms.length}; drained: ${report.drained ? 'yes' : 'no'}; memory of a relay: ${report.memoryMiB} MiB`,
    `${report.redelivered} effects done again, at most ${report.redeliveredLimit}; WAL held back: at most ${Math.round(report.retainedWalBytes / 1024 ** 2)} MiB`,
    ...rows,
    ...Object.entries(report.notAvailable).map(([name, reason]) => `  ${name.padEnd(24)} not available: ${reason}`),
    ...report.breaches.map(({ invariant, what }) => `  ${invariant}: ${what}`),
    ...report.doubts.map((doubt) => `  the truth is in doubt: ${doubt}`),
    conclusion(report),
  ].join('\n');
}

function conclusion({ sabotage, caught, invariant, ok }: TortureReport): string {
  if (sabotage !== null) {
    return caught === true ? `CAUGHT: ${sabotage} broke ${invariant ?? ''}` : `NOT CAUGHT: ${sabotage}`;
  }
  return ok ? 'OK' : 'NOT OK';
}
