import assert from 'node:assert/strict';
import type { FetchPosition } from '../../broker/log.ts';
import type { LogRecord } from '../../broker/record.ts';
import { checkHistory } from '../history/check-history.ts';
import type { HistoryEvent, ReadValue } from '../history/history.ts';
import type { CaseDefinition } from './case.ts';
import { between, idsOf, newRecords, type Scene } from './scene.ts';

const PARTITIONS = 2;
const APPENDS = 60;
const WRITERS = 3;
const READERS = 3;

/** What writers and readers do to a topic at the same time, as each of them sees it. */
class Run {
  readonly history: HistoryEvent[] = [];
  readonly #scene: Scene;
  #isOver = false;

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  async make(): Promise<void> {
    const readers = Array.from({ length: READERS }, (_, n) => this.#read(`reader ${n}`));
    const written = Array.from({ length: WRITERS }, (_, n) => this.#write(`writer ${n}`));
    await Promise.allSettled(written);
    this.#isOver = true;
    await Promise.all([...readers, ...written]);
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const records = await this.#scene.readAll(partition);
      this.history.push({ op: 'final-read', partition: `${partition}`, records: records.map(readValue) });
    }
  }

  async #write(process: string): Promise<void> {
    const { random } = this.#scene;
    for (let n = 0; n < APPENDS / WRITERS; n++) {
      const partition = between(random, 0, PARTITIONS - 1);
      const records = newRecords(between(random, 1, 6));
      const append = { op: 'append', process, partition: `${partition}`, values: idsOf(records) } as const;
      await this.#scene.append(partition, records).then(
        () => this.history.push({ ...append, outcome: 'ok' }),
        (error: unknown) => {
          this.history.push({ ...append, outcome: 'info' });
          throw error;
        },
      );
    }
  }

  /** Polls until everything was written and read, and starts over somewhere now and then. */
  async #read(process: string): Promise<void> {
    const next = await this.#seek(process);
    for (;;) {
      const wasOver = this.#isOver;
      if (!wasOver && this.#scene.random() < 0.05) next.splice(0, next.length, ...(await this.#seek(process)));
      const maxRecords = between(this.#scene.random, 1, 30);
      const records = await this.#scene.fetch(next, { maxRecords, maxWaitMs: wasOver ? 0 : 20 });
      this.history.push({ op: 'poll', process, records: records.map(readValue) });
      for (const { partition, offset } of records) next[partition] = this.#scene.at(partition, offset + 1n);
      if (wasOver && records.length === 0) return;
    }
  }

  async #seek(process: string): Promise<FetchPosition[]> {
    const ends = await this.#scene.log.ends(this.#scene.topic);
    return ends.map(({ partition, start, end }) => {
      const offset = start + BigInt(between(this.#scene.random, 0, Number(end - start)));
      this.history.push({ op: 'seek', process, partition: `${partition}`, offset });
      return this.#scene.at(partition, offset);
    });
  }
}

function readValue({ partition, offset, messageId }: LogRecord): ReadValue {
  return { partition: `${partition}`, offset, value: messageId };
}

/** Level 7: what many writers and readers saw, held against each other. */
export const historyCases: readonly CaseDefinition[] = [
  {
    level: 7,
    name: 'shows no anomaly to writers and readers that work at the same time',
    run: async (scene) => {
      await scene.createTopic(PARTITIONS);
      const run = new Run(scene);
      await run.make();
      const { anomalies, appended, polled } = checkHistory(run.history);
      assert.deepEqual(
        anomalies.map(({ kind, what }) => `${kind}: ${what}`),
        [],
      );
      assert.ok(
        appended >= APPENDS && polled >= APPENDS,
        `Too little to prove it: ${appended} written, ${polled} read.`,
      );
    },
  },
];
