import { access } from 'node:fs/promises';
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { findServer } from './find-server.ts';
import { startKafka } from './kafka.ts';
import { startNats } from './nats.ts';
import { startRabbitMq } from './rabbitmq.ts';
import { startRedis } from './redis.ts';

/** Kafka's request 18, ApiVersions, version 0: length, key, version, correlation id aaaa, no client id. */
const API_VERSIONS = Buffer.from('0000000a0012000061616161ffff', 'hex');

/** The first program fetched over a slow line takes its time. */
const LIMIT_MS = 900_000;

describe.each([
  ['Redis', startRedis, Buffer.from('PING\r\n'), /^\+PONG/],
  ['NATS', startNats, Buffer.from('PING\r\n'), /^INFO .*"jetstream":true[^]*PONG/],
  ['RabbitMQ', startRabbitMq, Buffer.from('AMQP\0\0\u0009\u0001', 'latin1'), /^[^]\0\0[^]*RabbitMQ/],
  ['Kafka', startKafka, API_VERSIONS, /^.{4}aaaa\0\0/s],
] as const)('%s', (_name, start, question, answer) => {
  it('runs on a port and in a folder of its own, and leaves nothing', { timeout: LIMIT_MS }, async () => {
    await using server = await start();
    const { port } = new URL(server.url.includes('//') ? server.url : `tcp://${server.url}`);
    expect(await ask(Number(port), question, answer)).toMatch(answer);
    await server.stop();
    await server.stop();
    if (server.folder === undefined) return; // one that the environment named
    await expect(ask(Number(port), question, answer)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await expect(access(server.folder)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

it('two of a kind run side by side', async () => {
  await using one = await startRedis();
  await using other = await startRedis();
  if (one.folder !== undefined) expect(one.url).not.toBe(other.url);
});

it('a server that cannot be had fails with what to do', async () => {
  const wanted = {
    name: 'Nothing',
    variable: 'TAILRACE_TEST_NOTHING_URL',
    program: 'tailrace-has-no-such-program',
    debianPackage: 'tailrace-has-no-such-package',
  };
  await expect(findServer(wanted)).rejects.toThrow(
    /need Nothing: .* not on the PATH[^]*apt-get install tailrace-has-no-such-package.*TAILRACE_TEST_NOTHING_URL/,
  );
}, 120_000);

/** Sends the question and gathers what comes back, until that is the answer or the server closes. */
function ask(port: number, question: Buffer, answer: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(question));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (answer.test(text)) socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => {
      resolve(text);
    });
  });
}
