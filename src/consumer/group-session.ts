import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { currentVersion } from '../postgres/migrations.ts';
import { GROUP_CHANNEL, GROUPS_MIGRATION } from './group-tables.ts';
import type { ConsumerSettings } from './options.ts';

/** The client that a member keeps for its group's business, so that handlers cannot make it wait. */
export class GroupSession {
  readonly client: pg.PoolClient;
  readonly #onError: (error: Error) => void;
  readonly #onNotification: (message: pg.Notification) => void;
  #isClosed = false;

  private constructor(client: pg.PoolClient, onLost: () => void, onNotification: (payload?: string) => void) {
    this.client = client;
    this.#onError = onLost;
    this.#onNotification = ({ channel, payload }) => {
      if (channel === GROUP_CHANNEL) onNotification(payload);
    };
    client.on('error', this.#onError);
    client.on('notification', this.#onNotification);
  }

  /** Takes a client from the pool and listens for what other members say. */
  static async open(
    settings: Pick<ConsumerSettings, 'database' | 'leaseMs'>,
    onLost: () => void,
    onNotification: (payload?: string) => void,
  ): Promise<GroupSession> {
    const session = new GroupSession(await connect(settings), onLost, onNotification);
    try {
      await session.client.query(`listen ${GROUP_CHANNEL}`);
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  /**
   * Checks what a consumer cannot do without.
   *
   * @throws TailraceError `NOT_MIGRATED`, `INVALID_OPTION`.
   */
  async assertUsable({ schemaName }: Pick<ConsumerSettings, 'schemaName'>): Promise<void> {
    if (typeof (this.client as Partial<pg.PoolClient>).getTransactionStatus !== 'function') {
      throw new TailraceError(
        'INVALID_OPTION',
        'createConsumer: the clients of database have no method getTransactionStatus. Update the package pg.',
      );
    }
    const version = await currentVersion(this.client, schemaName);
    if (version < GROUPS_MIGRATION) {
      throw new TailraceError(
        'NOT_MIGRATED',
        `The schema ${schemaName} of the consumer's database is at migration ${version}; consumers need ${GROUPS_MIGRATION}. Run: tailrace migrate`,
        { details: { schema: schemaName, version } },
      );
    }
  }

  /** Closes the connection, whatever it is doing. What was sent and not committed is rolled back by the server. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.client.removeListener('notification', this.#onNotification);
    this.client.release(true); // not back to the pool: it listens
  }
}

/** A client from the pool; throws `TIMEOUT` if there is none for a whole lease. */
async function connect({ database, leaseMs }: Pick<ConsumerSettings, 'database' | 'leaseMs'>): Promise<pg.PoolClient> {
  const connecting = database.connect();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), leaseMs);
  });
  const client = await Promise.race([connecting, late]).finally(() => clearTimeout(timer));
  if (client !== undefined) return client;
  connecting.then(
    (unused) => unused.release(),
    () => undefined, // nobody waits for it any more
  );
  throw new TailraceError('TIMEOUT', `The database gave no connection within ${leaseMs} ms.`, { retryable: true });
}
