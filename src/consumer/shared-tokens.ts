import { messageOf } from '../base/errors.ts';
import { LocalAllowance, SharedAllowance, sharedBucket, type TokenSource } from './allowance.ts';
import type { ConsumerSettings, RateLimitSettings } from './options.ts';
import type { AllowanceMaker } from './rate-limits.ts';

type Settings = Pick<ConsumerSettings, 'database' | 'schema' | 'group' | 'logger'>;

/** Makes allowances: of this process alone, or with the group's bucket in the database. */
export function allowancesOf(settings: Settings): AllowanceMaker {
  return (limit, name) => {
    const rules = { ratePerSecond: limit.rate, burst: limit.burst };
    return limit.shared ? new SharedAllowance(rules, tokensOf(settings, limit, name)) : new LocalAllowance(rules);
  };
}

/** Takes tokens from a row of `rate_bucket`, on a client of the pool that is given back at once. */
function tokensOf({ database, schema, group, logger }: Settings, limit: RateLimitSettings, name: string): TokenSource {
  const { capacity } = sharedBucket({ ratePerSecond: limit.rate, burst: limit.burst });
  return async (least, wanted) => {
    try {
      const client = await database.connect();
      let lost: Error | undefined;
      const onError = (error: Error): void => {
        lost ??= error;
      };
      client.on('error', onError);
      try {
        const { rows } = await client.query<{ tokens: number }>(
          `select ${schema}.take_rate_tokens($1, $2, $3, $4, $5, $6) as tokens`,
          [group, name, limit.rate, capacity, least, wanted],
        );
        return rows[0]?.tokens ?? 0;
      } finally {
        client.release(lost);
        client.removeListener('error', onError);
      }
    } catch (error) {
      logger.warn({ group, limit: name, error: messageOf(error) }, 'Could not ask for tokens of a shared limit');
      throw error;
    }
  };
}
