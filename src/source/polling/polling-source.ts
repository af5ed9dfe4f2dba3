import { TailraceError } from '../../base/errors.ts';
import { silentLogger, type Logger } from '../../base/logger.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../../postgres/schema-name.ts';
import { ControlConnection } from '../control-connection.ts';
import { resumePlace } from '../place.ts';
import { assertReached, assertSafe, readFacts } from '../preflight.ts';
import type { Source } from '../source.ts';
import { Upkeep } from '../upkeep.ts';
import { PollingReader } from './polling-reader.ts';

export interface PollingOptions {
  /** The outbox's database. Not through a transaction pooler. */
  readonly connectionString: string;
  /** @defaultValue 'tailrace' */
  readonly schema?: string;
  /** The wait after a poll that found something; doubled after each that did not. @defaultValue 5 */
  readonly minIntervalMs?: number;
  /** The longest wait between two polls: how late a message can be noticed after a quiet time. @defaultValue 250 */
  readonly maxIntervalMs?: number;
  /** Rows in one query, and so in one append. @defaultValue 5_000 */
  readonly pageRows?: number;
  readonly logger?: Logger;
}

/** The polling settings with their defaults. */
export interface PollingTimes {
  readonly minIntervalMs: number;
  readonly maxIntervalMs: number;
  readonly pageRows: number;
}

/** Fills defaults in. Throws `INVALID_OPTION` naming the field. */
export function pollingOptions(options: PollingOptions): PollingTimes {
  const { minIntervalMs = 5, maxIntervalMs = 250, pageRows = 5_000 } = options;
  for (const [name, value] of Object.entries({ minIntervalMs, maxIntervalMs, pageRows })) {
    if (Number.isInteger(value) && value > 0) continue;
    throw new TailraceError('INVALID_OPTION', `${name} is ${value}, expected a whole number above 0.`);
  }
  return { minIntervalMs, maxIntervalMs: Math.max(minIntervalMs, maxIntervalMs), pageRows };
}

const POLLS_ONLY = 'it was built with pollingSource, which only polls; build it with walSource to choose';

/**
 * Reads the outbox by asking, in short queries, what has become visible since the last answer. Needs no replication right,
 * no `wal_level`, no slot. Messages of one key keep their order if the writers hold a lock on what the key stands for when
 * they publish, as they do when they have updated its row.
 */
export function pollingSource(options: PollingOptions): Source {
  const logger = options.logger ?? silentLogger;
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const quotedSchema = quoteSchema(schema);
  const times = pollingOptions(options);
  return {
    async open(resume, signal, mode) {
      const control = await ControlConnection.open(options.connectionString, 'tailrace relay polling', signal);
      const { client } = control;
      try {
        assertSafe(await readFacts(client, schema), schema);
        const place = await resumePlace(resume);
        await assertReached(client, place, schema);
        const upkeep = new Upkeep(client, quotedSchema, logger);
        return new PollingReader({
          client,
          quotedSchema,
          upkeep,
          place,
          status: { mode: 'polling', ...(mode === 'wal' && { reason: POLLS_ONLY }) },
          ...times,
          close: () => control.close(() => upkeep.stop()),
        });
      } catch (error) {
        await control.close();
        throw error;
      }
    },
  };
}
