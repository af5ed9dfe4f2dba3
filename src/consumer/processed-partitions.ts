import { messageOf } from '../base/errors.ts';
import type { ConsumerSettings } from './options.ts';

/** Attaching a partition waits for transactions that wrote into the default one; handlers' inserts would queue behind it. */
const LOCK_TIMEOUT_MS = 5_000;

/**
 * Has the database make the next weeks' partitions of `processed_message`. Never throws: without them the rows go to the
 * default partition, where they are as good, and only harder to remove later.
 */
export async function ensureProcessedPartitions({
  database,
  schema,
  group,
  logger,
}: Pick<ConsumerSettings, 'database' | 'schema' | 'group' | 'logger'>): Promise<void> {
  let lost: Error | undefined;
  const onError = (error: Error): void => {
    lost ??= error;
  };
  try {
    const client = await database.connect();
    client.on('error', onError);
    try {
      await client.query(
        `begin; set local lock_timeout = ${LOCK_TIMEOUT_MS}; select ${schema}.ensure_processed_partitions(); commit`,
      );
    } catch (error) {
      await client.query('rollback').catch(onError);
      throw error;
    } finally {
      client.release(lost);
      client.removeListener('error', onError);
    }
  } catch (error) {
    logger.warn({ group, error: messageOf(error) }, 'Could not make partitions of processed_message ahead of time');
  }
}
