import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import type { RelayState } from '../relay/relay.ts';
import type { Figures, GroupLag } from './contract.ts';
import type { ObservedPipeline } from './observed-pipeline.ts';

const STATES: readonly RelayState[] = ['stopped', 'starting', 'standby', 'leading', 'retrying', 'halted'];
/** Gauges of the library's that are named like counters, and say nothing that others do not. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];

/**
 * The metrics of a process and its pipelines. Nothing is measured for them: a scrape reads what is there.
 *
 * @see https://prometheus.io/docs/practices/naming/
 */
export function metricsOf(pipelines: () => readonly ObservedPipeline[]): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const name of MISNAMED) registry.removeSingleMetric(name);
  addRelayMetrics(registry, pipelines);
  addFigures(registry, pipelines);
  return registry;
}

function addRelayMetrics(registers: Registry, pipelines: () => readonly ObservedPipeline[]): void {
  const each = (samples: (pipeline: ObservedPipeline, labels: Labels) => Sample[]) => () =>
    pipelines().flatMap((pipeline) => samples(pipeline, { pipeline: pipeline.name }));
  counter(
    registers,
    ['tailrace_relay_appended_messages_total', 'Messages appended to the log by this process.', ['pipeline']],
    each((pipeline, labels) => [[labels, pipeline.status().appended]]),
  );
  counter(
    registers,
    ['tailrace_relay_batches_total', 'Appends to the log by this process.', ['pipeline']],
    each((pipeline, labels) => [[labels, pipeline.status().batches]]),
  );
  counter(
    registers,
    [
      'tailrace_relay_unroutable_messages_total',
      'Messages that this process could not route, and set aside as dead letters of the relay.',
      ['pipeline'],
    ],
    each((pipeline, labels) => [[labels, pipeline.status().deadLettered]]),
  );
  gauge(
    registers,
    ['tailrace_relay_state', 'What the relay is doing: 1 for its state, 0 for all others.', ['pipeline', 'state']],
    each((pipeline, labels) =>
      STATES.map((state) => [{ ...labels, state }, state === pipeline.status().state ? 1 : 0]),
    ),
  );
}

function addFigures(registers: Registry, pipelines: () => readonly ObservedPipeline[]): void {
  const add = (name: string, help: string, labelNames: string[], samples: (figures: Figures) => Sample[]): void => {
    gauge(registers, [name, help, ['pipeline', ...labelNames]], () =>
      pipelines().flatMap((observed) => {
        const pipeline = observed.name;
        const { figures } = observed.figures();
        if (figures === undefined) return [];
        return samples(figures).map(([labels, value]): Sample => [{ pipeline, ...labels }, value]);
      }),
    );
  };
  add(
    'tailrace_relay_lag_messages',
    'Committed messages that are not in the log; at most a million is counted.',
    [],
    (f) => [[{}, f.lagMessages]],
  );
  add('tailrace_relay_lag_seconds', 'Age of the oldest committed message that is not in the log.', [], (f) => [
    [{}, f.lagSeconds],
  ]);
  add(
    'tailrace_slot_retained_bytes',
    'WAL that the replication slot holds back.',
    [],
    ({ slotRetainedBytes: bytes }) => (bytes === undefined ? [] : [[{}, bytes]]),
  );
  const place = ['group', 'topic', 'partition'];
  add('tailrace_group_lag_messages', 'Messages in the log that a group has not handled.', place, (f) =>
    f.groups.map((lag) => [placeLabels(lag), lag.messages]),
  );
  add('tailrace_group_lag_seconds', 'Age in the log of the oldest message that a group has not handled.', place, (f) =>
    f.groups.map((lag) => [placeLabels(lag), lag.seconds]),
  );
  add(
    'tailrace_group_seconds_to_loss',
    'Time until retention removes messages that a group has not handled; absent where nothing is going to.',
    place,
    (f) =>
      f.groups.flatMap((lag): Sample[] =>
        lag.secondsToLoss === undefined ? [] : [[placeLabels(lag), lag.secondsToLoss]],
      ),
  );
  add('tailrace_parked_messages', 'Messages that a group has set aside; dead ones for good.', ['group', 'dead'], (f) =>
    f.parked.map(({ group, isDead, count }) => [{ group, dead: String(isDead) }, count]),
  );
  add('tailrace_parked_keys', 'Keys whose messages line up behind one that is set aside.', ['group'], (f) =>
    f.waiting.map(({ group, parkedKeys }) => [{ group }, parkedKeys]),
  );
  add('tailrace_waiting_timers', 'Messages that wait for the time of a retry or of their delivery.', ['group'], (f) =>
    f.waiting.map(({ group, timers }) => [{ group }, timers]),
  );
  add('tailrace_relay_dead_letters', 'Messages that the relay could not route, and keeps for an operator.', [], (f) => [
    [{}, f.relayDeadLetters],
  ]);
  gauge(
    registers,
    ['tailrace_figures_age_seconds', 'Time since lags and counts were read from the database.', ['pipeline']],
    () =>
      pipelines().flatMap((observed): Sample[] => {
        const { figures, ageMs } = observed.figures();
        return figures === undefined ? [] : [[{ pipeline: observed.name }, ageMs / 1_000]];
      }),
  );
}

function placeLabels({ group, topic, partition }: GroupLag): Labels {
  return { group, topic, partition: String(partition) };
}

type Named = readonly [name: string, help: string, labelNames: string[]];

function gauge(register: Registry, [name, help, labelNames]: Named, samples: () => readonly Sample[]): void {
  const metric: Gauge = new Gauge({
    name,
    help,
    labelNames,
    registers: [register],
    collect: () => {
      metric.reset();
      for (const [labels, value] of samples()) metric.set({ ...labels }, value);
    },
  });
}

function counter(register: Registry, [name, help, labelNames]: Named, samples: () => readonly Sample[]): void {
  const metric: Counter = new Counter({
    name,
    help,
    labelNames,
    registers: [register],
    collect: () => {
      metric.reset();
      for (const [labels, value] of samples()) metric.inc({ ...labels }, value);
    },
  });
}
