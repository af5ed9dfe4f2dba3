import { Registry, type OpenMetricsContentType } from 'prom-client';
import { expect, it } from 'vitest';
import { DurationCounts } from '../../src/consumer/attempt-durations.ts';
import { registerConsumerMetrics } from '../../src/consumer/metrics.ts';

it('counts durations by topic, cumulative up to each bound', () => {
  const durations = new DurationCounts();
  expect(durations.read()).toEqual([]);
  for (const ms of [0, 1, 1.5, 30_000, 30_001]) durations.add('orders', ms);
  durations.add('mails', 7);
  const [orders, mails] = durations.read();
  expect(orders).toMatchObject({ topic: 'orders', count: 5, sumMs: 60_003.5 });
  const at = (maxMs: number): number | undefined => orders?.buckets.find((bucket) => bucket.maxMs === maxMs)?.count;
  expect([1, 2.5, 10_000, 30_000].map(at)).toEqual([2, 3, 3, 4]);
  expect(mails).toMatchObject({ topic: 'mails', count: 1, sumMs: 7 });
});

it('a registry for OpenMetrics takes the metrics too', async () => {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  registerConsumerMetrics(registry, () => []);
  expect(await registry.metrics()).toContain('# TYPE tailrace_consumer_handled_messages counter\n');
});
