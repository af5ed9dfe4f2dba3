import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { registerConsumerMetrics, type Consumer } from '../../src/consumer/index.ts';
import { parseExposition, promtoolFindings } from '../admin/exposition.ts';
import { Counted } from './counted.ts';
import { counts, Stream, until } from './kit.ts';

it('a registry of prom-client shows what consumers have done, those of a group added up', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  const consumers: Consumer[] = [];
  const registry = new Registry();
  registry.setDefaultLabels({ app: 'shop' });
  registerConsumerMetrics(registry, () => consumers);
  expect(() => {
    registerConsumerMetrics(registry, () => consumers);
  }).toThrow(/already been registered/);
  const empty = await registry.metrics();
  expect((await promtoolFindings(empty)) ?? '').toBe('');

  consumers.push(stream.consumer({ group: 'a "b"' }), stream.consumer({ group: 'a "b"' }), stream.consumer());
  for (const consumer of consumers) {
    consumer.on(Counted, ({ payload: { n } }) => {
      if (n === 2) throw new Error('two is too much');
    });
    await consumer.start();
  }
  const assigned = (): number => consumers.reduce((sum, consumer) => sum + consumer.status().assignments.length, 0);
  await until(() => assigned() === 2); // the topic's partition, in either group
  await stream.publish(...counts(['k'], 3));
  const done = (): number =>
    consumers.reduce((sum, consumer) => sum + consumer.status().handled + consumer.status().dead, 0);
  await until(() => done() === 6 && consumers.every((consumer) => consumer.status().running === 0));

  const body = await registry.metrics();
  const samples = Object.fromEntries(parseExposition(body));
  for (const labels of ['group="a \\"b\\"",app="shop"', 'group="counting",app="shop"']) {
    expect(samples).toMatchObject({
      [`tailrace_consumer_handled_messages_total{${labels}}`]: 2,
      [`tailrace_consumer_duplicate_messages_total{${labels}}`]: 0,
      [`tailrace_consumer_retried_messages_total{${labels}}`]: 2,
      [`tailrace_consumer_dead_messages_total{${labels}}`]: 1,
      [`tailrace_consumer_parked_messages_total{${labels}}`]: 0,
      [`tailrace_consumer_ignored_messages_total{${labels}}`]: 0,
      [`tailrace_consumer_lost_messages_total{${labels}}`]: 0,
      [`tailrace_consumer_running_handlers{${labels}}`]: 0,
      [`tailrace_consumer_prefetched_messages{${labels}}`]: 0,
      [`tailrace_consumer_problem{${labels}}`]: 0,
      [`tailrace_consumer_inbox_messages{${labels}}`]: 0,
      [`tailrace_consumer_limited_messages{${labels}}`]: 0,
      [`tailrace_consumer_circuit_open{${labels}}`]: 0,
      [`tailrace_consumer_assigned_partitions{${labels.replace(',', `,topic="${Counted.topic}",`)}}`]: 1,
    });
    const histogram = labels.replace(',', `,topic="${Counted.topic}",`);
    expect(samples[`tailrace_consumer_attempt_duration_seconds_count{${histogram}}`]).toBe(5); // two, and three of the second
    expect(samples[`tailrace_consumer_attempt_duration_seconds_sum{${histogram}}`]).toBeGreaterThan(0);
    const infinite = histogram.replace(',app', ',le="+Inf",app');
    expect(samples[`tailrace_consumer_attempt_duration_seconds_bucket{${infinite}}`]).toBe(5);
  }
  expect((await promtoolFindings(body)) ?? '').toBe('');
  registry.resetMetrics(); // leaves what is the consumers'
  expect(await registry.metrics()).toBe(body);
});
