import type pg from 'pg';
import { isTailraceError, messageOf, TailraceError } from '../../base/errors.ts';
import { silentLogger, type Logger } from '../../base/logger.ts';
import { closeClient, openClient } from '../../postgres/connection.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../../postgres/schema-name.ts';
import { resumePlace, type Place } from '../place.ts';
import { PollingReader } from '../polling/polling-reader.ts';
import { pollingOptions, type PollingOptions, type PollingTimes } from '../polling/polling-source.ts';
import {
  assertOurSlot,
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
import { createSlot, freeSlot } from './slot.ts';
import { SweepThenStream } from './sweep-then-stream.ts';
import { WalReader } from './wal-reader.ts';

export interface WalSourceOptions extends PollingOptions {
  /**
   * The replication slot's name: lower-case letters, digits and underscores. Slots belong to the whole server, so two
   * outboxes on one server need two names. @defaultValue the schema and the database's OID, as in `tailrace_16384`
   */
  readonly slot?: string;
}

/**
 * Reads the outbox from the write-ahead log. Where the server or the role does not allow that, it polls at once, warns, and
 * says so in its status. A slot that is missing, lost, or not the one that this log was read from is created anew, while
 * polling delivers.
 */
export function walSource(options: WalSourceOptions): Source {
  const logger = options.logger ?? silentLogger;
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const times = pollingOptions(options);
  quoteSchema(schema);
  if (options.slot !== undefined && !/^[a-z0-9_]{1,63}$/.test(options.slot)) {
    throw new TailraceError(
      'INVALID_OPTION',
      `slot is ${JSON.stringify(options.slot)}, expected 1 to 63 lower-case letters, digits and underscores.`,
    );
  }
  return {
    open: (resume, signal) => openWal({ ...options, schema, logger, times }, resume, signal),
  };
}

interface Settings extends WalSourceOptions {
  readonly schema: string;
  readonly logger: Logger;
  readonly times: PollingTimes;
}

async function openWal(settings: Settings, resume: Resume, signal: AbortSignal): Promise<SourceReader> {
  const lost = new AbortController();
  const control = await openClient({
    connectionString: settings.connectionString,
    applicationName: 'tailrace relay control',
    settings: { plan_cache_mode: 'force_custom_plan' },
    onLost: (error) => {
      lost.abort(error);
    },
  });
  try {
    const facts = await readFacts(control, settings.schema);
    assertSafe(facts, settings.schema);
    return await new Opening(settings, control, lost.signal, facts).open(await resumePlace(resume), signal);
  } catch (error) {
    await closeClient(control);
    throw error;
  }
}

/** The steps from a connection to a reader. */
class Opening {
  readonly #settings: Settings;
  readonly #control: pg.Client;
  readonly #controlLost: AbortSignal;
  readonly #facts: SourceFacts;
  readonly #slot: string;
  readonly #upkeep: Upkeep;

  constructor(settings: Settings, control: pg.Client, controlLost: AbortSignal, facts: SourceFacts) {
    this.#settings = settings;
    this.#control = control;
    this.#controlLost = controlLost;
    this.#facts = facts;
    this.#slot = settings.slot ?? `${settings.schema.slice(0, 50)}_${facts.databaseOid}`;
    this.#upkeep = new Upkeep(control, quoteSchema(settings.schema), settings.logger);
  }

  async open(place: Place, signal: AbortSignal): Promise<SourceReader> {
    try {
      return await this.#reader(place, signal);
    } catch (error) {
      await this.#upkeep.stop();
      throw error;
    }
  }

  async #reader(place: Place, signal: AbortSignal): Promise<SourceReader> {
    const { logger, schema } = this.#settings;
    const noWal = whyNoWal(this.#facts, schema);
    if (noWal !== undefined) {
      logger.warn({ reason: noWal }, 'the WAL cannot be read; polling the outbox instead');
      return this.#polling(place, { mode: 'polling', reason: noWal });
    }
    assertOurSlot(await readSlot(this.#control, this.#slot), this.#slot, this.#facts.database);
    const slot = await freeSlot(this.#control, this.#slot, signal);
    const noSlot = whyNotSlot(slot, place.end);
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
      if (isTailraceError(error, 'REPLICATION_FAILED') && !error.retryable) {
        const reason = messageOf(error.cause);
        this.#settings.logger.warn({ reason }, 'the WAL cannot be read; polling the outbox instead');
        return this.#polling(place, { mode: 'polling', reason });
      }
      throw error;
    }
  }

  #sweeping(place: Place): SourceReader {
    const { connectionString, logger } = this.#settings;
    const reason = `creating the replication slot ${this.#slot}`;
    return new SweepThenStream({
      client: this.#control,
      polling: this.#polling(place, { mode: 'polling', reason }),
      creation: createSlot(this.#control, connectionString, this.#slot, this.#facts.serverVersion),
      logger,
      stream: (reached) => this.#streaming(reached),
    });
  }

  #polling(place: Place, status: SourceStatus): PollingReader {
    return new PollingReader({
      client: this.#control,
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
    const reader = await WalReader.open({
      upkeep: this.#upkeep,
      clock: new CheckpointClock(this.#control, quoteSchema(schema), place.snapshot, place.inLog.toArray()),
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
          onEnd,
        });
        return { stream, connection };
      },
      close: () => this.#close(),
    });
    const onLost = (): void => reader.fail(connectionLost(this.#controlLost.reason));
    if (this.#controlLost.aborted) onLost();
    else this.#controlLost.addEventListener('abort', onLost, { once: true });
    return reader;
  }

  async #close(): Promise<void> {
    await this.#upkeep.stop();
    await closeClient(this.#control);
  }
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
