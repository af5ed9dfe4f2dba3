import { messageOf } from '../../base/errors.ts';
import { LEVELS, type Level } from './case.ts';
import type { ConformanceCase, LogConformance } from './log-conformance.ts';

/** What became of a case. */
export interface CaseReport {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'refused';
  /** Why it was refused, or what it failed with. */
  readonly why?: string;
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly refused: number;
}

/** What became of the cases of a level. */
export interface LevelReport extends Counts {
  readonly level: Level;
  readonly name: string;
  readonly cases: readonly CaseReport[];
}

/** What became of a run of the suite. */
export interface ConformanceReport extends Counts {
  /** The name of the log. */
  readonly log: string;
  readonly levels: readonly LevelReport[];
  /** Nothing failed, and something passed. */
  readonly ok: boolean;
}

/** Runs all cases of a suite, one after another, and closes it. `onCase` is told of each. Never rejects for a case that fails. */
export async function runConformance(
  log: string,
  suite: LogConformance,
  onCase: (level: Level, report: CaseReport) => void = () => undefined,
): Promise<ConformanceReport> {
  const done: { readonly level: Level; readonly report: CaseReport }[] = [];
  try {
    for (const one of suite.cases) {
      const report = await reportOf(one);
      done.push({ level: one.level, report });
      onCase(one.level, report);
    }
  } finally {
    await suite.close();
  }
  const levels = [...Map.groupBy(done, ({ level }) => level)]
    .sort(([a], [b]) => a - b)
    .map(([level, ofLevel]) =>
      levelReport(
        level,
        ofLevel.map(({ report }) => report),
      ),
    );
  const counts = countsOf(done.map(({ report }) => report));
  return { log, ...counts, levels, ok: counts.failed === 0 && counts.passed > 0 };
}

async function reportOf({ name, run }: ConformanceCase): Promise<CaseReport> {
  try {
    return { name, ...(await run()) };
  } catch (error) {
    return { name, outcome: 'failed', why: messageOf(error) };
  }
}

function levelReport(level: Level, cases: readonly CaseReport[]): LevelReport {
  return { level, name: LEVELS[level], ...countsOf(cases), cases };
}

function countsOf(cases: readonly CaseReport[]): Counts {
  const count = (outcome: CaseReport['outcome']): number => cases.filter((one) => one.outcome === outcome).length;
  return { passed: count('passed'), failed: count('failed'), refused: count('refused') };
}
