import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Network } from './network.ts';

/** A server that sends back what it gets, and a connection to it by way of a network. */
async function echo() {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const folder = await mkdtemp(join(tmpdir(), 'tailrace-network-'));
  const url = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const network = await Network.open(url, join(folder, 'socket'));
  const client = connect(Number(new URL(network.url).port), '127.0.0.1');
  client.on('error', () => undefined);
  await once(client, 'connect');
  return {
    network,
    client,
    async [Symbol.asyncDispose]() {
      client.destroy();
      await network[Symbol.asyncDispose]();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true });
    },
  };
}

/** Resolves when the connection is over, whichever way. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** Resolves with the first so many bytes. */
function read(socket: Socket, length: number): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.length >= length) resolve(text);
    });
  });
}

it('lets no byte overtake another when it becomes faster', async () => {
  await using way = await echo();
  const reading = read(way.client, 6);
  way.network.change({ delayMs: 50, sliceBytes: 1 });
  way.client.write('abc');
  await new Promise((resolve) => setTimeout(resolve, 10)); // so that it is on its way; whether it is changes nothing
  way.network.change();
  way.client.write('def');
  expect(await reading).toBe('abcdef');
});

it('brings everything that was sent while it hung', async () => {
  await using way = await echo();
  const reading = read(way.client, 3);
  way.network.change({ hangs: true });
  way.client.write('abc');
  way.network.change();
  expect(await reading).toBe('abc');
});

it('ends every connection when it is reset, and refuses new ones while it is told to', async () => {
  await using way = await echo();
  const ended = closed(way.client);
  way.network.change({ refuses: true });
  way.network.reset();
  await ended;
  const refused = connect(Number(new URL(way.network.url).port), '127.0.0.1');
  refused.on('error', () => undefined);
  await closed(refused);
});
