import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import pg from 'pg';
import { expect, it } from 'vitest';
import { memoryLog } from '../../src/broker/memory/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { isTransient } from '../../src/postgres/sqlstate.ts';
import { listenToPool } from '../../src/postgres/pool-listener.ts';
import { Counted } from '../consumer/counted.ts';

/** A message of the protocol: its type, its length, its body. */
function message(type: string, body: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from(type), length, body]);
}

const WELCOME = Buffer.concat([message('R', Buffer.alloc(4)), message('Z', Buffer.from('I'))]);
const FAREWELL = message('E', Buffer.from('SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0'));

/** Ends each session in the same breath in which it is opened. */
function endingServer(): { server: ReturnType<typeof createServer>; sockets: Set<Socket> } {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', () => socket.end(Buffer.concat([WELCOME, FAREWELL])));
  });
  return { server, sockets };
}

it.each([
  ['a pool that is listened to', undefined],
  ['the pool of a consumer', 'consumer'],
])('a session that the server ends just as it is opened does not end the process: %s', async (_what, by) => {
  const { server, sockets } = endingServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const crashes: Error[] = [];
  const crashed = (error: Error): void => void crashes.push(error);
  process.on('uncaughtException', crashed);
  const database = new pg.Pool({ host: '127.0.0.1', port, user: 'nobody', database: 'none' });
  try {
    const asked =
      by === undefined
        ? askThrough(database)
        : createConsumer({ log: memoryLog(), group: 'counting', database })
            .on(Counted, () => undefined)
            .start();
    await expect(asked).rejects.toSatisfy(isTransient);
    expect(crashes).toEqual([]);
  } finally {
    process.off('uncaughtException', crashed);
    await database.end();
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

async function askThrough(pool: pg.Pool): Promise<void> {
  const stop = listenToPool(pool);
  const client = await pool.connect();
  try {
    await client.query('select 1');
  } finally {
    client.release(true);
    stop();
  }
}

it('listens to a client once, and to nothing any more when it is told to stop', async () => {
  const pool = new pg.Pool({ host: '127.0.0.1', port: 1 });
  const stops = [listenToPool(pool), listenToPool(pool)];
  const client = new pg.Client();
  for (const _ of [1, 2]) pool.emit('acquire', client);
  expect(client.listenerCount('error')).toBe(1);
  for (const stop of stops) stop();
  expect([pool.listenerCount('error'), pool.listenerCount('acquire')]).toEqual([0, 0]);
  await pool.end();
});
