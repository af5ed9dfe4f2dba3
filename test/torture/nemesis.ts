import { messageOf } from '../../src/base/errors.ts';
import { pause } from '../../src/base/signal.ts';
import type { Fault } from './fault.ts';
import { monotonicMs } from './history.ts';
import type { Probe } from './probe.ts';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

/** What became of a fault in a run. */
export interface FaultReport {
  injected: number;
  /** How often its effect was seen: a fault that never happened proves nothing. */
  observed: number;
  /** The longest time from the end of the cause to the effect of a message that was committed after it. */
  recoveryMs: number | null;
  /** How often relays met a message again that the log holds already, and left it out. */
  duplicatesRefused: number;
}

/**
 * In which order faults are injected: those of every run first, then the others by the seed. Those that a sabotage needs come
 * before all, and again after each: one of them may not be enough for it to show.
 */
export function planOf(faults: readonly Fault[], random: Random, needs: readonly string[] = []): Fault[] {
  const always = faults.filter(({ always: isAlways }) => isAlways === true);
  const others = faults.filter(({ always: isAlways }) => isAlways !== true);
  const plan = [...random.shuffled(always), ...random.shuffled(others)];
  const needed = faults.filter(({ name }) => needs.includes(name));
  return [...needed, ...plan.filter((fault) => !needed.includes(fault)).flatMap((fault) => [fault, ...needed])];
}

/** So often a fault is tried until its effect is seen: a busy machine may be quicker or slower than the fault. */
const MOST_ATTEMPTS = 3;

export interface NemesisOptions {
  readonly stage: Stage;
  readonly probe: Probe;
  readonly random: Random;
  readonly say: (text: string) => void;
  /** Whether what is yet to come could tell nothing more. */
  readonly isDecided: () => boolean;
}

/** Injects faults one after the other, and sees that things recover after each. */
export class Nemesis {
  readonly reports: Record<string, FaultReport> = {};
  /** Faults that cannot be injected on this machine, and why. */
  readonly missing: Record<string, string> = {};
  /** When the last fault was over and its effects had gone, on the monotonic clock; `undefined` while there is one. */
  calmSinceMs: number | undefined = monotonicMs();
  readonly #options: NemesisOptions;

  constructor(options: NemesisOptions) {
    this.#options = options;
  }

  /** Those that can be injected here. The others are in {@link missing} from then on. */
  async available(faults: readonly Fault[]): Promise<Fault[]> {
    const { stage, say } = this.#options;
    for (const { name, missing } of faults) {
      const reason = await missing?.(stage);
      if (reason === undefined) continue;
      this.missing[name] = reason;
      say(`${name}: not available, ${reason}`);
    }
    return faults.filter(({ name }) => !Object.hasOwn(this.missing, name));
  }

  /**
   * Goes through the plan. With an end, begins again where it is through before that, and stops at it, but not before the first
   * `least` faults of the plan.
   */
  async run(plan: readonly Fault[], endMs: number | undefined, least: number): Promise<void> {
    let count = 0;
    const { stage, random, isDecided } = this.#options;
    const isOver = (): boolean =>
      stage.stop.aborted || isDecided() || (count >= least && endMs !== undefined && performance.now() >= endMs);
    do {
      for (const fault of plan) {
        if (isOver()) return;
        await this.#injectUntilSeen(fault);
        count += 1;
        await pause(random.whole(100, 600), stage.stop);
      }
    } while (endMs !== undefined && plan.length > 0 && !isOver());
  }

  async #injectUntilSeen(fault: Fault): Promise<void> {
    const { stage, isDecided } = this.#options;
    for (let attempt = 1; attempt <= MOST_ATTEMPTS && !stage.stop.aborted && !isDecided(); attempt++) {
      this.calmSinceMs = undefined;
      const seen = await this.#inject(fault);
      await stage.mend();
      this.calmSinceMs = monotonicMs();
      if (seen) return;
    }
  }

  /** Whether its effect was seen. */
  async #inject(fault: Fault): Promise<boolean> {
    const { stage, probe, say } = this.#options;
    const report = (this.reports[fault.name] ??= {
      injected: 0,
      observed: 0,
      recoveryMs: null,
      duplicatesRefused: 0,
    });
    const refusedBefore = stage.refusedDuplicates;
    stage.history.write('fault', 'invoke', { name: fault.name });
    const startedMs = monotonicMs();
    report.injected += 1;
    const effect = await this.#attempt(fault);
    const lastedMs = monotonicMs() - startedMs;
    const recoveryMs = await probe.arrive();
    const observed = typeof effect === 'boolean' ? effect : await effect();
    if (observed) report.observed += 1;
    report.duplicatesRefused += stage.refusedDuplicates - refusedBefore;
    stage.watchMemory();
    stage.history.write('fault', observed ? 'ok' : 'fail', { name: fault.name, lastedMs, recoveryMs });
    if (recoveryMs === undefined) {
      if (!stage.stop.aborted) {
        stage.stalls.push(`a message committed after ${fault.name} had no effect in time`);
        await stage.noteStall();
      }
    } else report.recoveryMs = Math.max(report.recoveryMs ?? 0, Math.round(recoveryMs));
    const outcome = observed ? '' : ', not observed';
    say(`${fault.name}: ${seconds(lastedMs)}${outcome}, recovered after ${seconds(recoveryMs)}`);
    return observed;
  }

  async #attempt(fault: Fault): Promise<boolean | (() => Promise<boolean>)> {
    const { stage, random } = this.#options;
    try {
      return await fault.inject(stage, random);
    } catch (error) {
      if (stage.stop.aborted) throw error;
      stage.history.write('fault', 'info', { name: fault.name, error: messageOf(error) });
      stage.stalls.push(`${fault.name} could not be injected: ${messageOf(error)}`);
      return false;
    }
  }
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? 'no time in sight' : `${(ms / 1_000).toFixed(1)} s`;
}
