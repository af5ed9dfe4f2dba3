import type { Logger } from '../../src/base/logger.ts';
import { pause } from '../../src/base/signal.ts';
import { isTransient } from '../../src/postgres/sqlstate.ts';
import type { Source, SourceReader } from '../../src/source/source.ts';
import type { TestDatabase } from '../servers/test-database.ts';
import type { Ledger } from './ledger.ts';

export const none = new AbortController().signal;

/** Publishes `count` messages of one key in one transaction; `first` is the number of the first. */
export function publish(database: Pick<TestDatabase, 'pool'>, count: number, key = 'k'): Promise<unknown> {
  return database.pool.query(
    `insert into tailrace.outbox (message_id, topic, key, type, payload)
      select gen_random_uuid(), 'orders', $2, 'Counted', to_json(last + n)
      from (select count(*) as last from tailrace.outbox where key = $2) c, generate_series(1, $1) n order by n`,
    [count, key],
  );
}

/** Takes a batch and keeps it. */
export async function take(reader: SourceReader, ledger: Ledger): Promise<void> {
  ledger.keep(await reader.next(none));
  reader.durable();
}

/** Takes batches until that fails. */
export async function takeAll(reader: SourceReader, ledger: Ledger): Promise<never> {
  for (;;) await take(reader, ledger);
}

/** Asks again and again until it is so. For concurrent tests, in which `expect.poll` is not to be had. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await pause(20);
}

/**
 * What a relay does: reads, and opens the source again after what can pass, until `enough` says so after a batch. Answers
 * the reasons for polling that it met, and the errors that it went on from.
 */
export async function relayUntil(
  source: Source,
  ledger: Ledger,
  enough: (reader: SourceReader) => boolean | Promise<boolean>,
): Promise<{ readonly reasons: string[]; readonly errors: unknown[] }> {
  const reasons: string[] = [];
  const errors: unknown[] = [];
  for (;;) {
    let reader: SourceReader | undefined;
    try {
      reader = await source.open(ledger, none);
      for (;;) {
        const { reason } = reader.status;
        if (reason !== undefined && reason !== reasons.at(-1)) reasons.push(reason);
        if (await enough(reader)) return { reasons, errors };
        await take(reader, ledger);
      }
    } catch (error) {
      if (!isTransient(error)) throw error;
      errors.push(error);
    } finally {
      await reader?.close();
    }
  }
}

/** A logger that keeps its lines. */
export function keptLog(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const keep =
    (level: string) =>
    (_fields: object, text: string): void => {
      lines.push(`${level}: ${text}`);
    };
  return { lines, debug: keep('debug'), info: keep('info'), warn: keep('warn'), error: keep('error') };
}
