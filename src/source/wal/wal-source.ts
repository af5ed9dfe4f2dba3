import { isTailraceError, messageOf, TailraceError } from '../../base/errors.ts';
import { silentLogger, type Logger } from '../../base/logger.ts';
import { sqlStateOf } from '../../postgres/sqlstate.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../../postgres/schema-name.ts';
import type { RelayMode } from '../../broker/log.ts';
import { ControlConnection } from '../control-connection.ts';
import { resumePlace, type Place } from '../place.ts';
import { PollingReader } from '../polling/polling-reader.ts';
import { pollingOptions, type PollingOptions, type PollingTimes } from '../polling/polling-source.ts';
import {
  assertOurSlot,
  assertReached,
  assertSafe,
  readFacts,
  readSlot,
  whyNotSlot,
  whyNoWal,
  type SourceFacts,
} from '../preflight.ts';
import type { Resume, Source, SourceReader, SourceStatus } from '../source.ts';
import { Upkeep } from '../upkeep.ts';
import { CheckpointClock } from './checkpoint-clock.ts';
import { OutboxStream } from './outbox-stream.ts';
import { ReplicationConnection } from './replication-connection.ts';
import { createSlot, dropSlot, freeSlot, type SlotCreation } from './slot.ts';
import { NoWal, SweepThenStream } from './sweep-then-stream.ts';
import { WalBudgetWatch, WatchedReader, type WalBudgetPolicy } from './wal-budget-watch.ts';
import { WalReader } from './wal-reader.ts';

export interface WalSourceOptions extends PollingOptions {
  /**
   * The replication slot's name: lower-case letters, digits and underscores. Slots belong to the whole server, so two
   * outboxes on one server need two names. @defaultValue the schema and the database's OID, as in `tailrace_16384`
   */
  readonly slot?: string;
  /**
   * Whether standbys keep a copy of the slot, so that it outlives a failover. From Postgres 17 on; the standby needs
   * `sync_replication_slots = on`. @defaultValue true
   */
  readonly failoverSlot?: boolean;
  /**
   * How much WAL the slot may hold back, in bytes. Warned of at 50 and 80 %, with who holds it and when it will be full.
   * @defaultValue the server's `max_slot_wal_keep_size`; none where that sets no limit
   */
  readonly walBudgetBytes?: number;
  /**
   * What to do when that is used up. `warn` only says so. `drop-slot` drops the slot, so that the server can remove the WAL,
   * and polls until a new one exists; no message is lost by that. @defaultValue 'warn'
   */
  readonly onWalBudget?: WalBudgetPolicy;
}

/**
 * Reads the outbox from the write-ahead log. Where the server or the role does not allow that, it polls at once, warns, says
 * so in its status, and tries again now and then. A slot that is missing, lost, or not the one that this log was read from
 * is created anew, while polling delivers.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function walSource(options: WalSourceOptions): Source {
  const settings = settingsOf(options);
  const trust = { distrust: undefined };
  return {
    open: (resume, signal, mode) => openWal(settings, trust, { resume, signal, mode }),
  };
}

interface Settings extends WalSourceOptions {
  readonly schema: string;
  readonly logger: Logger;
  readonly times: PollingTimes;
  readonly onWalBudget: WalBudgetPolicy;
}

function settingsOf(options: WalSourceOptions): Settings {
  const { logger = silentLogger, schema = DEFAULT_SCHEMA, slot, walBudgetBytes, onWalBudget = 'warn' } = options;
  const invalid = (found: string): TailraceError => new TailraceError('INVALID_OPTION', found);
  quoteSchema(schema);
  if (slot !== undefined && !/^[a-z0-9_]{1,63}$/.test(slot)) {
    throw invalid(`slot is ${JSON.stringify(slot)}, expected 1 to 63 lower-case letters, digits and underscores.`);
  }
  if (walBudgetBytes !== undefined && (!Number.isSafeInteger(walBudgetBytes) || walBudgetBytes <= 0)) {
    throw invalid(`walBudgetBytes is ${walBudgetBytes}, expected a whole number above 0.`);
  }
  if (!POLICIES.includes(onWalBudget)) {
    throw invalid(`onWalBudget is ${JSON.stringify(onWalBudget)}, expected ${POLICIES.join(' or ')}.`);
  }
  return { ...options, schema, logger, times: pollingOptions(options), onWalBudget };
}

const POLICIES: readonly WalBudgetPolicy[] = ['warn', 'drop-slot'];

/** Why the slot of this source is not to be read from any more, though it looks right; until it has been created anew. */
interface Trust {
  distrust: string | undefined;
}

interface Wanted {
  readonly resume: Resume;
  readonly signal: AbortSignal;
  readonly mode: RelayMode | undefined;
}

async function openWal(settings: Settings, trust: Trust, { resume, signal, mode }: Wanted): Promise<SourceReader> {
  const control = await ControlConnection.open(settings.connectionString, 'tailrace relay control', signal);
  try {
    const facts = await readFacts(control.client, settings.schema);
    assertSafe(facts, settings.schema);
    const place = await resumePlace(resume);
    await assertReached(control.client, place, settings.schema);
    return await new Opening(settings, trust, control, facts).open(place, signal, mode);
  } catch (error) {
    await control.close();
    throw error;
  }
}

/** The steps from a connection to a reader. */
class Opening {
  readonly #settings: Settings;
  readonly #trust: Trust;
  readonly #control: ControlConnection;
  readonly #facts: SourceFacts;
  readonly #slot: string;
  readonly #upkeep: Upkeep;

  constructor(settings: Settings, trust: Trust, control: ControlConnection, facts: SourceFacts) {
    this.#settings = settings;
    this.#trust = trust;
    this.#control = control;
    this.#facts = facts;
    this.#slot = settings.slot ?? `${settings.schema.slice(0, 50)}_${facts.databaseOid}`;
    this.#upkeep = new Upkeep(control.client, quoteSchema(settings.schema), settings.logger);
  }

  async open(place: Place, signal: AbortSignal, mode: RelayMode | undefined): Promise<SourceReader> {
    try {
      const reader = mode === 'polling' ? this.#polling(place, { mode: 'polling' }) : await this.#reader(place, signal);
      return this.#watched(reader, signal);
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  #watched(reader: SourceReader, signal: AbortSignal): SourceReader {
    const { connectionString, logger, onWalBudget, walBudgetBytes } = this.#settings;
    const budgetBytes = walBudgetBytes ?? this.#facts.maxSlotWalKeepBytes;
    if (budgetBytes === undefined) return reader;
    const slot = this.#slot;
    const watch = new WalBudgetWatch({ connectionString, slot, budgetBytes, policy: onWalBudget, logger, signal });
    return new WatchedReader(reader, watch);
  }

  async #reader(place: Place, signal: AbortSignal): Promise<SourceReader> {
    const { logger } = this.#settings;
    assertOurSlot(await readSlot(this.#control.client, this.#slot), this.#slot, this.#facts.database);
    const noWal = whyNoWal(this.#facts, this.#settings.schema);
    if (noWal !== undefined) return this.#sweeping(place, noWal);
    const slot = await freeSlot(this.#control.client, this.#slot, signal);
    const noSlot = whyNotSlot(slot, place.end) ?? this.#trust.distrust;
    if (noSlot === undefined) return this.#streamingIfAllowed(place);
    if (place.end > 0n) {
      logger.warn(
        { slot: this.#slot, reason: noSlot },
        'the replication slot cannot be used; creating it anew and sweeping the outbox',
      );
    } else logger.info({ slot: this.#slot }, 'creating the replication slot');
    return this.#sweeping(place);
  }

  async #streamingIfAllowed(place: Place): Promise<SourceReader> {
    try {
      return await this.#streaming(place);
    } catch (error) {
      if (isTailraceError(error, 'REPLICATION_FAILED') && isRefusal(error)) {
        return this.#sweeping(place, messageOf(error.cause));
      }
      throw error;
    }
  }

  /** @param refused why there is no use in a slot now. */
  #sweeping(place: Place, refused?: string): SourceReader {
    return new SweepThenStream({
      client: this.#control.client,
      polling: this.#polling(place, { mode: 'polling', reason: `creating the replication slot ${this.#slot}` }),
      create: () => this.#createSlot(),
      ...(refused !== undefined && { refused }),
      logger: this.#settings.logger,
      stream: (reached) => {
        this.#trust.distrust = undefined;
        return this.#streaming(reached);
      },
    });
  }

  #createSlot(): SlotCreation {
    const { connectionString, failoverSlot = true } = this.#settings;
    return createSlot(this.#control.client, {
      connectionString,
      slot: this.#slot,
      failover: failoverSlot && this.#facts.serverVersion >= 170_000,
      allowed: () => this.#assertWal(),
    });
  }

  /** Looks at server, role and publication again. A slot that nothing can be read from only fills the server's disk. */
  async #assertWal(): Promise<void> {
    const { client } = this.#control;
    const facts = await readFacts(client, this.#settings.schema);
    const reason = whyNoWal(facts, this.#settings.schema);
    if (reason === undefined) return;
    if (facts.mayReplicate) await dropSlot(client, this.#slot);
    throw new NoWal(reason);
  }

  #polling(place: Place, status: SourceStatus): PollingReader {
    return new PollingReader({
      client: this.#control.client,
      quotedSchema: quoteSchema(this.#settings.schema),
      upkeep: this.#upkeep,
      place,
      status,
      ...this.#settings.times,
      close: () => this.#close(),
    });
  }

  async #streaming(place: Place): Promise<SourceReader> {
    const { connectionString, logger, schema } = this.#settings;
    const { client, lost } = this.#control;
    const reader = await WalReader.open({
      upkeep: this.#upkeep,
      clock: new CheckpointClock(client, quoteSchema(schema), place.snapshot, place.inLog.toArray()),
      logger,
      end: place.end,
      walSenderTimeoutMs: this.#facts.walSenderTimeoutMs,
      connect: async ({ onReplyRequested, onData, onEnd }) => {
        const stream = new OutboxStream(schema, place, onReplyRequested);
        const connection = await ReplicationConnection.open({
          connectionString,
          slot: this.#slot,
          publication: schema,
          handler: stream,
          onData,
          onEnd: (error) => {
            this.#judge(error);
            onEnd(error);
          },
        });
        return { stream, connection };
      },
      onGap: (reason) => {
        this.#trust.distrust = reason;
      },
      close: () => this.#close(),
    });
    const onLost = (): void => reader.fail(connectionLost(lost.reason));
    if (lost.aborted) onLost();
    else lost.addEventListener('abort', onLost, { once: true });
    return reader;
  }

  /**
   * Changes are decoded with the catalog as it was when they were made: what a publication lacked then stays away when it is
   * mended, and where there was none, Postgres 15 does not read on.
   */
  #judge(error: TailraceError): void {
    if (isTailraceError(error, 'PUBLICATION_MISMATCH')) this.#trust.distrust = error.message;
    if (sqlStateOf(error.cause) === UNDEFINED_OBJECT) this.#trust.distrust = messageOf(error.cause);
  }

  #close(): Promise<void> {
    return this.#control.close(() => this.#upkeep.stop());
  }
}

const UNDEFINED_OBJECT = '42704';

/** The role may not, or the server has no walsender left: polling helps, trying the same again at once does not. */
function isRefusal(error: TailraceError): boolean {
  return !error.retryable || /^53[34]00$/.test(sqlStateOf(error.cause) ?? '');
}

function connectionLost(cause: unknown): TailraceError {
  return new TailraceError(
    'REPLICATION_FAILED',
    'The connection beside the replication stream was lost. Both are opened again.',
    {
      cause,
      retryable: true,
    },
  );
}
