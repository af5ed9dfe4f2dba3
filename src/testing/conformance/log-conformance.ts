import assert from 'node:assert/strict';
import type { LogCapability } from '../../broker/capabilities.ts';
import { TailraceError, messageOf } from '../../base/errors.ts';
import { NEEDS, type CaseDefinition, type Level } from './case.ts';
import { contractCases } from './contract.ts';
import { groupCases } from './group-cases.ts';
import { historyCases } from './history-cases.ts';
import { logCases } from './log-cases.ts';
import { deliveryCases } from './delivery-cases.ts';
import { orderCases } from './order-cases.ts';
import { processCases } from './process-cases.ts';
import { producerCases } from './producer-cases.ts';
import { Scene, type HandlersDatabase } from './scene.ts';
import type { LogSubject } from './subject.ts';
import { createTestDatabase } from '../test-database.ts';

/** What is to be tested. */
export interface LogConformanceOptions {
  /**
   * Opens the log under test. Called when the first case runs, and again for a case that closes what it was given. Whether
   * the logs share what they hold does not matter: every case uses topics of its own.
   */
  readonly create: () => Promise<LogSubject>;
  /** What the log can do. It has to declare just that, and to show it. @defaultValue none */
  readonly capabilities?: readonly LogCapability[];
  /**
   * Makes the migrated database of the handlers in levels 1 to 3. Called once, when the first of their cases runs; stopped
   * with the suite. @defaultValue `createTestDatabase()`: on a server of its own
   */
  readonly database?: () => Promise<HandlersDatabase>;
  /** Which levels. @defaultValue all */
  readonly levels?: readonly Level[];
  /** Decides what cases do at random: the same again with the same seed. @defaultValue by chance, and named where a case fails */
  readonly seed?: number;
  /** How long a case may take. In milliseconds; raise it for a log that is far away. @defaultValue 120_000 */
  readonly timeoutMs?: number;
}

/** `refused`: the log does not have to, for the reason given. */
export type CaseOutcome = { readonly outcome: 'passed' } | { readonly outcome: 'refused'; readonly why: string };

/** One thing that a log has to do, for any test runner. */
export interface ConformanceCase {
  readonly level: Level;
  readonly name: string;
  /** Rejects with what is wrong. May be called more than once, and with other cases at the same time. */
  readonly run: () => Promise<CaseOutcome>;
}

/** The cases for one log. */
export interface LogConformance extends AsyncDisposable {
  readonly cases: readonly ConformanceCase[];
  /** Closes the log, once the cases have run. May be called more than once. */
  close(): Promise<void>;
}

/**
 * The conformance suite for a log: what every log has to do, and what this one declares that it can do. An ability that is
 * declared and not shown fails, and so does one that is shown and not declared.
 *
 * ```ts
 * const suite = logConformance({ create: async () => targetLogSubject(await openMyLog()), capabilities: ['time-seek'] });
 * for (const { name, run } of suite.cases) test(name, run);
 * afterAll(() => suite.close());
 * ```
 */
export function logConformance(options: LogConformanceOptions): LogConformance {
  const stage = new Stage(options);
  const definitions = [
    declaration(options.capabilities ?? []),
    ...contractCases,
    ...deliveryCases,
    ...orderCases,
    ...groupCases,
    ...logCases,
    ...producerCases,
    ...processCases,
    ...historyCases,
  ];
  const { levels } = options;
  const close = (): Promise<void> => stage.close();
  return {
    cases: definitions
      .filter(({ level }) => levels === undefined || levels.includes(level))
      .map((definition) => ({
        level: definition.level,
        name: `a log ${definition.name}`,
        run: () => stage.play(definition),
      })),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A declaration that says too much or too little makes the cases mean something else. */
function declaration(capabilities: readonly LogCapability[]): CaseDefinition {
  return {
    level: 0,
    name: `declares what it can do: ${capabilities.join(', ') || 'nothing beyond what all logs can'}`,
    run: ({ log }) => {
      assert.deepEqual([...log.capabilities].sort(), [...capabilities].sort());
      return Promise.resolve();
    },
  };
}

const DEFAULT_TIMEOUT_MS = 120_000;

/** Opens the log when it is needed, and gives each case a scene of its own. */
class Stage {
  readonly #options: LogConformanceOptions;
  readonly #seed: number;
  #subject: Promise<LogSubject> | undefined;
  #database: Promise<HandlersDatabase> | undefined;

  constructor(options: LogConformanceOptions) {
    this.#options = options;
    this.#seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  }

  async play(definition: CaseDefinition): Promise<CaseOutcome> {
    this.#subject ??= this.#options.create();
    const subject = await this.#subject;
    const database = (): Promise<HandlersDatabase> => (this.#database ??= this.#makeDatabase());
    const scene = new Scene({ subject, open: this.#options.create, database, seed: this.#seed });
    try {
      const { capabilities = [], timeoutMs = DEFAULT_TIMEOUT_MS } = this.#options;
      return await within(timeoutMs, outcomeOf(definition, scene, capabilities));
    } catch (error) {
      throw new Error(`${messageOf(error)} (seed ${this.#seed})`, { cause: error });
    } finally {
      await scene.cleanup.run();
    }
  }

  async close(): Promise<void> {
    const subject = await this.#subject?.catch(() => undefined); // whose case has failed
    await subject?.close();
    const database = await this.#database?.catch(() => undefined);
    await database?.stop();
  }

  #makeDatabase(): Promise<HandlersDatabase> {
    const { database = createTestDatabase } = this.#options;
    return database();
  }
}

/** A log that does not answer fails the case; nobody can end what it was asked. */
async function within<Result>(timeoutMs: number, work: Promise<Result>): Promise<Result> {
  const { promise, reject } = Promise.withResolvers<never>();
  const message = `The case was not over after ${timeoutMs} ms.`;
  const timer = setTimeout(() => reject(new TailraceError('TIMEOUT', message)), timeoutMs);
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function outcomeOf(
  { needs, shows, run }: CaseDefinition,
  scene: Scene,
  capabilities: readonly LogCapability[],
): Promise<CaseOutcome> {
  if (needs !== undefined && !NEEDS[needs].isMet(scene.subject)) return { outcome: 'refused', why: NEEDS[needs].why };
  if (shows !== undefined && !capabilities.includes(shows.capability)) {
    await shows.refuses(scene);
    return { outcome: 'refused', why: `the log does not declare ${shows.capability}, and says so when it is asked` };
  }
  await run(scene);
  return { outcome: 'passed' };
}
