import { TailraceError } from '../base/errors.ts';
import type { Consumer, ConsumerStatus } from './consumer.ts';
import type { ConsumerCounters } from './counters.ts';
import { shown } from './option-checks.ts';

/** A registry of prom-client, as far as it is used: `new Registry()`, or its global `register`. */
export interface MetricsRegistry {
  registerMetric(metric: { get(): Promise<object>; reset(): void }): void;
}

/**
 * Adds the metrics of consumers of this process to a registry of prom-client. Nothing is measured for them: a scrape reads
 * `status()`. Consumers of one group are added up. Call it once for a registry; `consumers` is called with every scrape.
 *
 * Throws what the registry throws: it has metrics of these names already.
 *
 * @throws TailraceError `INVALID_OPTION`: not a registry, or not a function.
 * @see https://prometheus.io/docs/practices/naming/
 */
export function registerConsumerMetrics(
  registry: MetricsRegistry,
  consumers: () => readonly Consumer<unknown>[],
): void {
  assertMeasurable(registry, consumers);
  const statuses = (): ConsumerStatus[] => consumers().map((consumer) => consumer.status());
  for (const [name, help, counter] of COUNTERS) {
    registry.registerMetric(
      new StatusMetric('counter', name, help, () => sums(statuses().map((one) => [ofGroup(one), one[counter]]))),
    );
  }
  for (const [name, help, read] of GAUGES) {
    registry.registerMetric(new StatusMetric('gauge', name, help, () => sums(statuses().flatMap(read))));
  }
  const duration = 'tailrace_consumer_attempt_duration_seconds';
  registry.registerMetric(
    new StatusMetric(
      'histogram',
      duration,
      'Time from taking a client to the commit of an attempt at a message or a batch, or to what undid it.',
      () => sums(statuses().flatMap((status) => durationSamples(duration, status))),
    ),
  );
}

function assertMeasurable(registry: unknown, consumers: unknown): void {
  const { registerMetric } = (registry ?? {}) as Partial<MetricsRegistry>;
  const problem =
    typeof registerMetric !== 'function'
      ? 'the registry has no method registerMetric. Expected one of prom-client: new Registry(), or register.'
      : typeof consumers !== 'function'
        ? `consumers is ${shown(consumers)}. Expected a function that returns them, such as () => [consumer].`
        : undefined;
  if (problem !== undefined) throw new TailraceError('INVALID_OPTION', `registerConsumerMetrics: ${problem}`);
}

const COUNTERS: readonly (readonly [name: string, help: string, counter: keyof ConsumerCounters | 'lost'])[] = [
  ['tailrace_consumer_handled_messages_total', 'Messages handled and committed by this process.', 'handled'],
  [
    'tailrace_consumer_duplicate_messages_total',
    'Messages that came again after they had been handled, and were skipped.',
    'duplicates',
  ],
  [
    'tailrace_consumer_retried_messages_total',
    'Messages whose handler failed in an attempt that was followed by another.',
    'retried',
  ],
  ['tailrace_consumer_dead_messages_total', 'Messages set aside for good, with their attempts used up.', 'dead'],
  ['tailrace_consumer_parked_messages_total', 'Messages set aside because their type has no handler.', 'parked'],
  [
    'tailrace_consumer_lost_messages_total',
    'Offsets passed over because retention had removed what was there.',
    'lost',
  ],
  ['tailrace_consumer_ignored_messages_total', 'Messages stepped over because their type has no handler.', 'ignored'],
];

const GAUGES: readonly (readonly [name: string, help: string, read: (status: ConsumerStatus) => Sample[]])[] = [
  ['tailrace_consumer_running_handlers', 'Handlers that run now.', (status) => [[ofGroup(status), status.running]]],
  [
    'tailrace_consumer_prefetched_messages',
    'Messages in memory: read ahead, running, or waiting for a retry.',
    (status) => [[ofGroup(status), status.prefetched]],
  ],
  [
    'tailrace_consumer_inbox_messages',
    'Messages of the partitions that this process has, stored in the inbox and not handled.',
    (status) => [[ofGroup(status), status.stored]],
  ],
  [
    'tailrace_consumer_limited_messages',
    'Messages or batches in memory that wait for a limit.',
    (status) => [[ofGroup(status), status.limited]],
  ],
  [
    'tailrace_consumer_circuit_open',
    'Consumers of this process that call no handlers because all attempts fail.',
    (status) => [[ofGroup(status), status.circuit === 'open' || status.circuit === 'half-open' ? 1 : 0]],
  ],
  [
    'tailrace_consumer_assigned_partitions',
    'Partitions that this process has.',
    (status) => status.assignments.map(({ topic }) => [{ ...ofGroup(status), topic }, 1]),
  ],
  [
    'tailrace_consumer_problem',
    'Consumers of this process that something keeps from their group or from the log: 0 if all is well.',
    (status) => [[ofGroup(status), status.problem === undefined ? 0 : 1]],
  ],
];

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number, name?: string];

function ofGroup({ group }: ConsumerStatus): Labels {
  return { group };
}

function durationSamples(name: string, { group, attemptDurations }: ConsumerStatus): Sample[] {
  return attemptDurations.flatMap(({ topic, count, sumMs, buckets }) => {
    const labels = { group, topic };
    return [
      ...buckets.map((bucket): Sample => [
        { ...labels, le: String(bucket.maxMs / 1_000) },
        bucket.count,
        `${name}_bucket`,
      ]),
      [{ ...labels, le: '+Inf' }, count, `${name}_bucket`],
      [labels, sumMs / 1_000, `${name}_sum`],
      [labels, count, `${name}_count`],
    ] satisfies Sample[];
  });
}

/** Adds up what has the same name and labels: consumers of one group. */
function sums(samples: readonly Sample[]): Sample[] {
  const bySeries = new Map<string, Sample>();
  for (const [labels, value, name] of samples) {
    const series = JSON.stringify([name, labels]);
    const before = bySeries.get(series)?.[1] ?? 0;
    bySeries.set(series, name === undefined ? [labels, before + value] : [labels, before + value, name]);
  }
  return [...bySeries.values()];
}

/** What a registry of prom-client asks of a metric. prom-client's own classes keep values, and these are read. */
class StatusMetric {
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** A registry for OpenMetrics writes it. */
  name: string;
  readonly help: string;
  readonly aggregator = 'sum';
  readonly #read: () => readonly Sample[];

  constructor(type: StatusMetric['type'], name: string, help: string, read: () => readonly Sample[]) {
    this.type = type;
    this.name = name;
    this.help = help;
    this.#read = read;
  }

  async get(): Promise<object> {
    const { name, help, type, aggregator } = this;
    const values = this.#read().map(([labels, value, metricName]) => ({
      labels,
      value,
      ...(metricName !== undefined && { metricName }),
    }));
    return { name, help, type, values, aggregator };
  }

  /** The counts are the consumer's. */
  reset(): void {
    // nothing is kept here
  }
}
