import { silentLogger, type Logger } from '../base/logger.ts';
import { uuidV7 } from '../base/uuid.ts';
import { requireCapability } from '../broker/capabilities.ts';
import type { Log } from '../broker/log.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import type { CircuitRules } from './circuit.ts';
import { defaultDedupeWindowMs, LONGEST_WINDOW_MS, retryHorizonMs, type RetryRules } from './dedupe-window.ts';
import { NO_DELAYED_RETRIES, type DelayedRetries } from './delayed-retries.ts';
import type {
  AnyConsumerOptions,
  CircuitBreakerOptions,
  ConsumerDatabase,
  ConsumerMode,
  ConsumerOptions,
  ConsumerSettings,
  PlainConsumerOptions,
  RateLimit,
  RateLimitSettings,
  StartFrom,
} from './options.ts';
import { assertNames, atLeastOne, backoff, flag, invalid, name, oneOf, shown, whole } from './option-checks.ts';
import { PRESETS, type PresetSettings } from './presets.ts';

const DEFAULT_HEARTBEAT_MS = 1_000;
const DEFAULT_MAX_HANDLER_MS = 300_000;
/** One client for the group's own business, one that handlers leave free for whoever else uses the pool. */
const CLIENTS_NOT_FOR_HANDLERS = 2;

/**
 * Fills in the defaults.
 *
 * @throws TailraceError `INVALID_OPTION`, which names the option; `INVALID_SCHEMA_NAME`.
 */
export function settingsOf(given: AnyConsumerOptions): ConsumerSettings {
  assertKnown(given);
  const options = withoutEphemeral(given);
  const { retries = {}, prefetch = {}, schema = DEFAULT_SCHEMA } = options;
  const leaseMs = whole('leaseMs', options.leaseMs ?? 30_000, 100);
  const longestHeartbeatMs = Math.floor(leaseMs / 3);
  const heartbeatMs = options.heartbeatMs ?? Math.min(DEFAULT_HEARTBEAT_MS, longestHeartbeatMs);
  const rules: RetryRules = {
    attempts: whole('retries.attempts', retries.attempts ?? 3, 1),
    backoff: backoff('retries.backoff', retries.backoff),
    delayed: retries.delayed === undefined ? NO_DELAYED_RETRIES : delayedRetries(retries.delayed),
    maxHandlerMs: maxHandlerMs(options.maxHandlerMs ?? DEFAULT_MAX_HANDLER_MS),
    leaseMs,
  };
  const preset = presetSettings(options);
  return {
    ...rules,
    log: log(options.log),
    group: name('group', options.group),
    database: database(options.database),
    schema: quoteSchema(schema),
    schemaName: schema,
    startFrom: startFrom(options.log, options.startFrom ?? 'earliest'),
    onOutOfRange: oneOf('onOutOfRange', options.onOutOfRange ?? 'stop', ['stop', 'earliest', 'latest']),
    onUnhandledType: oneOf('onUnhandledType', options.onUnhandledType ?? 'ignore', ['ignore', 'park']),
    ...delivery(options),
    mode: mode(given),
    concurrency: concurrency(options, preset.concurrency),
    batchRecords: preset.batchRecords,
    deadLetters: oneOf('deadLetters', options.deadLetters ?? 'loose', ['strict', 'loose']),
    heartbeatMs: whole('heartbeatMs', heartbeatMs, 1, longestHeartbeatMs),
    cursorIntervalMs: whole('cursorIntervalMs', options.cursorIntervalMs ?? preset.cursorIntervalMs, 1),
    dedupeWindowMs: dedupeWindowMs(options.dedupeWindowMs ?? defaultDedupeWindowMs(rules), rules),
    prefetch: {
      records: whole('prefetch.records', prefetch.records ?? prefetchRecords(given, preset), 1),
      bytes: whole('prefetch.bytes', prefetch.bytes ?? preset.prefetch.bytes, 1),
    },
    handlerIdleMs: whole('handlerIdleMs', options.handlerIdleMs ?? leaseMs, 1),
    circuitBreaker: circuitBreaker(options.circuitBreaker ?? false),
    limits: rateLimits(options.limits ?? []),
    drainTimeoutMs: whole('drainTimeoutMs', options.drainTimeoutMs ?? 30_000, 0),
    memberId: name('memberId', options.memberId ?? uuidV7()),
    staticLeaseMs: staticLeaseMs(options),
    ephemeral: 'ephemeral' in given && given.ephemeral,
    canary: flag('canary', options.canary ?? false),
    logger: logger(options.logger ?? silentLogger),
  };
}

/** Every option, in the order of the documentation; `satisfies` tells of one that is missing. */
const KNOWN = Object.keys({
  log: true,
  group: true,
  database: true,
  schema: true,
  mode: true,
  startFrom: true,
  onOutOfRange: true,
  onUnhandledType: true,
  delivery: true,
  inbox: true,
  preset: true,
  concurrency: true,
  retries: true,
  deadLetters: true,
  leaseMs: true,
  heartbeatMs: true,
  cursorIntervalMs: true,
  dedupeWindowMs: true,
  prefetch: true,
  handlerIdleMs: true,
  maxHandlerMs: true,
  circuitBreaker: true,
  limits: true,
  drainTimeoutMs: true,
  memberId: true,
  staticLeaseMs: true,
  ephemeral: true,
  canary: true,
  logger: true,
} satisfies Record<keyof ConsumerOptions | 'ephemeral', true>);

/** A name that was misspelt would leave the default in place without a word. */
function assertKnown(given: unknown): void {
  if (typeof given !== 'object' || given === null)
    throw invalid('there are no options. Expected { log, group, database }.');
  const { retries, prefetch, inbox: bounds } = given as Partial<ConsumerOptions>;
  assertNames('', given, KNOWN);
  assertNames('retries.', retries, ['attempts', 'backoff', 'delayed']);
  assertNames('prefetch.', prefetch, ['records', 'bytes']);
  assertNames('inbox.', bounds, ['maxRecords', 'maxBytes']);
}

/** What a work queue cannot have is refused, rather than left out. */
function mode(given: AnyConsumerOptions): ConsumerMode {
  const chosen = oneOf('mode', given.mode ?? 'partitions', ['partitions', 'work-queue']);
  if (chosen === 'partitions') return chosen;
  const refuse = (option: string, why: string): never => {
    throw invalid(`mode is work-queue, and ${option}: ${why}. Leave one of them out.`);
  };
  if ('ephemeral' in given) refuse('the group is ephemeral', 'it has one member');
  if (given.delivery === 'store-first') refuse('delivery is store-first', 'what is stored belongs to a partition');
  if ('canary' in given && given.canary) refuse('canary is true', 'canaries have a share of the partitions');
  if (given.deadLetters === 'strict') refuse('deadLetters is strict', 'keys have no order there');
  if (given.onOutOfRange === 'latest') refuse('onOutOfRange is latest', 'others are at work behind the gap');
  if (given.limits?.some(({ per }) => per === 'key') === true) {
    refuse('a limit is per key', 'messages of a key go to several members');
  }
  return chosen;
}

/** What an ephemeral group comes to: a group's name of its own, and other defaults. */
function withoutEphemeral(given: AnyConsumerOptions): ConsumerOptions | PlainConsumerOptions {
  if (!('ephemeral' in given) || !flag('ephemeral', given.ephemeral)) return given;
  const { delivery: mode = 'at-least-once', ...options } = given;
  oneOf('delivery of an ephemeral group', mode, ['at-least-once']);
  for (const option of ['staticLeaseMs', 'canary', 'inbox'] as const) {
    if (Reflect.get(options, option) === undefined) continue;
    throw invalid(`${option} is given, and the group is ephemeral, which has one member. Leave one of them out.`);
  }
  const { memberId = uuidV7(), startFrom: start = 'latest' } = options;
  const group = `${name('group', options.group)}@${name('memberId', memberId)}`;
  return { ...options, group, memberId, delivery: mode, startFrom: start };
}

function delayedRetries(given: DelayedRetries): DelayedRetries {
  const option = 'retries.delayed';
  const isList = typeof given === 'object' && 'delaysMs' in given;
  assertNames(`${option}.`, given, isList ? ['delaysMs'] : ['attempts', 'initialMs', 'maxMs', 'factor']);
  if ('delaysMs' in given) {
    const { delaysMs } = given;
    if (Array.isArray(delaysMs) && delaysMs.length > 0) {
      return { delaysMs: given.delaysMs.map((ms, at) => whole(`${option}.delaysMs[${at}]`, ms, 0)) };
    }
    throw invalid(
      `${option}.delaysMs is ${shown(delaysMs)}. Expected the waits in milliseconds, [10_000, 60_000] for two, or no ${option}.`,
    );
  }
  const { attempts, initialMs = 1_000, maxMs = 3_600_000, factor = 4 } = given;
  return {
    attempts: whole(`${option}.attempts`, attempts, 0, 1_000),
    initialMs: whole(`${option}.initialMs`, initialMs, 0),
    maxMs: whole(`${option}.maxMs`, maxMs, 0),
    factor: atLeastOne(`${option}.factor`, factor),
  };
}

function staticLeaseMs({
  staticLeaseMs: ms,
  memberId,
}: Pick<ConsumerOptions, 'staticLeaseMs' | 'memberId'>): number | undefined {
  if (ms === undefined) return undefined;
  if (memberId !== undefined) return whole('staticLeaseMs', ms, 1);
  throw invalid('staticLeaseMs needs a memberId that stays the same when the process starts again. Give it one.');
}

function delivery(options: ConsumerOptions | PlainConsumerOptions): Pick<ConsumerSettings, 'delivery' | 'inbox'> {
  const { delivery: mode = 'effectively-once', retries } = options;
  if (mode === 'at-most-once' && retries !== undefined) {
    throw invalid(
      'delivery is at-most-once, and there are retries, which would be deliveries too. Leave one of them out.',
    );
  }
  const bounds = 'inbox' in options ? options.inbox : undefined;
  oneOf('delivery', mode, ['effectively-once', 'store-first', 'at-least-once', 'at-most-once']);
  if (mode === 'store-first') return { delivery: 'effectively-once', inbox: inbox(bounds) };
  if (bounds === undefined) return { delivery: mode, inbox: undefined };
  throw invalid(`inbox is given, and delivery is ${mode}, which stores nothing first. Leave one of them out.`);
}

function inbox({ maxRecords, maxBytes }: NonNullable<ConsumerOptions['inbox']> = {}): ConsumerSettings['inbox'] {
  return {
    maxRecords: whole('inbox.maxRecords', maxRecords ?? 100_000, 1),
    maxBytes: whole('inbox.maxBytes', maxBytes ?? 256_000_000, 1, Number.MAX_SAFE_INTEGER),
  };
}

function concurrency(options: ConsumerOptions | PlainConsumerOptions, wish: number): number {
  const clients = options.database.options?.max ?? Number.POSITIVE_INFINITY;
  const most = clients - CLIENTS_NOT_FOR_HANDLERS;
  if (most < 1) {
    throw invalid(`database is a pool of ${clients} clients. A consumer needs at least 3: raise the pool's max.`);
  }
  const hasTransaction = delivery(options).delivery === 'effectively-once';
  const byDefault = hasTransaction ? Math.min(wish, most) : wish;
  const wanted = whole('concurrency', options.concurrency ?? byDefault, 1);
  if (hasTransaction && wanted > most) {
    throw invalid(
      `concurrency is ${wanted}, but the pool has ${clients} clients, of which handlers may use ${most}. Lower concurrency or raise the pool's max to ${wanted + CLIENTS_NOT_FOR_HANDLERS}.`,
    );
  }
  return wanted;
}

function presetSettings({ preset }: Pick<ConsumerOptions, 'preset'>): PresetSettings {
  return PRESETS[preset === undefined ? 'default' : oneOf('preset', preset, ['throughput', 'latency'])];
}

/** What is in hand in a work queue is nobody else's, so that it is little by default. */
const QUEUE_PREFETCH_RECORDS = 500;

function prefetchRecords({ mode: chosen, preset }: AnyConsumerOptions, { prefetch }: PresetSettings): number {
  return chosen === 'work-queue' && preset === undefined ? QUEUE_PREFETCH_RECORDS : prefetch.records;
}

function maxHandlerMs(given: number | false): number | false {
  return given === false ? false : whole('maxHandlerMs', given, 1);
}

function dedupeWindowMs(given: number | false, rules: RetryRules): number | false {
  if (given === false) return false;
  const ms = whole('dedupeWindowMs', given, 1, LONGEST_WINDOW_MS);
  const horizonMs = retryHorizonMs(rules);
  if (ms >= horizonMs) return ms;
  throw invalid(
    `dedupeWindowMs is ${ms}, but a message may take ${horizonMs} ms from its first attempt to its last: retries.attempts and retries.delayed with their waits, maxHandlerMs for each, and leaseMs. Expected that or more, or false to know messages for ever.`,
  );
}

function circuitBreaker(given: CircuitBreakerOptions | false): CircuitRules | false {
  if (given === false) return false;
  assertNames('circuitBreaker.', given, ['failures', 'wait']);
  const failures = whole('circuitBreaker.failures', given.failures ?? 20, 1);
  return { failures, wait: { initialMs: 1_000, maxMs: 60_000, ...backoff('circuitBreaker.wait', given.wait) } };
}

function rateLimits(given: readonly RateLimit[]): readonly RateLimitSettings[] {
  if (Array.isArray(given)) return given.map(rateLimit);
  throw invalid(`limits is ${shown(given)}. Expected a list, [{ per: 'consumer', rate: 100 }] for one.`);
}

function rateLimit(given: RateLimit, at: number): RateLimitSettings {
  const option = `limits[${at}]`;
  assertNames(`${option}.`, given, ['per', 'rate', 'burst', 'shared']);
  const { rate, shared = false } = given;
  const per = oneOf(`${option}.per`, given.per, ['consumer', 'topic', 'key']);
  if (!(Number.isFinite(rate) && rate > 0)) {
    throw invalid(`${option}.rate is ${shown(rate)}. Expected messages a second, more than 0.`);
  }
  if (shared && per === 'key') {
    throw invalid(`${option} is shared and per key. A key has one member at a time: leave shared out.`);
  }
  const least = shared ? 2 : 1;
  return { per, rate, burst: whole(`${option}.burst`, given.burst ?? Math.max(least, Math.ceil(rate)), least), shared };
}

function log(given: Log): Log {
  if (typeof (given as Partial<Log> | null | undefined)?.fetch === 'function') return given;
  throw invalid('log has no method fetch. Expected postgresLog({ … }) or another log.');
}

function database(given: ConsumerDatabase): ConsumerDatabase {
  if (typeof (given as Partial<ConsumerDatabase> | null | undefined)?.connect === 'function') return given;
  throw invalid('database has no method connect. Expected a pg.Pool.');
}

function logger(given: Logger): Logger {
  const missing = (['debug', 'info', 'warn', 'error'] as const).find(
    (level) => typeof (given as Partial<Logger> | null)?.[level] !== 'function',
  );
  if (missing === undefined) return given;
  throw invalid(`logger has no method ${missing}. Expected pino, or anything with debug, info, warn and error.`);
}

/** By how much a time may be ahead of this process's clock, since it may come from another one. */
const CLOCK_DIFFERENCE_MS = 60_000;

function startFrom(log: Log, given: StartFrom): StartFrom {
  if (given instanceof Date) {
    requireCapability(log, 'time-seek', 'createConsumer: a startFrom that is a time');
    if (Number.isNaN(given.getTime())) throw invalid('startFrom is a Date that is no time.');
    if (given.getTime() > Date.now() + CLOCK_DIFFERENCE_MS) {
      throw invalid(
        `startFrom is ${given.toISOString()}, which is in the future. Expected a time that has passed, or 'latest'.`,
      );
    }
    return new Date(given);
  }
  return oneOf('startFrom', given, ['earliest', 'latest'], 'earliest, latest or a Date');
}
