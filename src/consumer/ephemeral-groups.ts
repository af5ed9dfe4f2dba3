import { messageOf } from '../base/errors.ts';
import type { ConsumerSettings } from './options.ts';

/**
 * Removes the ephemeral groups whose process is gone and whose lease has run out, whatever their names. Every consumer does
 * so, since those whose groups they were cannot. Never throws: the next one will.
 */
export async function removeEphemeralGroups({
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
      await client.query(`select ${schema}.remove_ephemeral_groups()`);
    } finally {
      client.release(lost);
      client.removeListener('error', onError);
    }
  } catch (error) {
    logger.warn({ group, error: messageOf(error) }, 'Could not remove the ephemeral groups of processes that are gone');
  }
}
