import { createServer, type AddressInfo } from 'node:net';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { TailraceError } from '../../src/base/errors.ts';
import { isConnectionLost, isTransient, sqlStateOf } from '../../src/postgres/sqlstate.ts';

function fromServer(code: string): Error {
  const error = new pg.DatabaseError('said the server', 0, 'error');
  error.code = code;
  error.severity = 'ERROR';
  return error;
}

function withCode(code: string): Error {
  return Object.assign(new Error(`connect ${code}`), { code });
}

/** What `pg` throws when it connects to a server that behaves as `onConnection` says. */
async function connectError(onConnection: 'refuse' | 'hang up' | 'say nothing'): Promise<unknown> {
  const server = createServer((socket) => {
    if (onConnection === 'hang up') socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  if (onConnection === 'refuse') await new Promise((resolve) => server.close(resolve));
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'nobody', connectionTimeoutMillis: 50 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return undefined;
  } catch (error) {
    return error;
  } finally {
    if (onConnection !== 'refuse') server.close();
  }
}

describe('isTransient', () => {
  it.each(['08000', '08006', '40001', '40P01', '53100', '53300', '55P03', '57P01', '57P02', '57P03'])(
    'holds for %s',
    (code) => {
      expect(isTransient(fromServer(code))).toBe(true);
    },
  );

  it.each(['57014', '23505', '42P01', '22P02', '28P01', '3D000', '54000', '55000', '57000'])(
    'does not hold for %s',
    (code) => {
      expect(isTransient(fromServer(code))).toBe(false);
    },
  );

  it.each(['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ETIMEDOUT'])('holds for the network error %s', (code) => {
    expect(isTransient(withCode(code))).toBe(true);
    expect(isConnectionLost(withCode(code))).toBe(true);
  });

  it('holds for several addresses only if it holds for each', () => {
    expect(isTransient(new AggregateError([withCode('ECONNREFUSED'), withCode('ETIMEDOUT')]))).toBe(true);
    expect(isTransient(new AggregateError([withCode('ECONNREFUSED'), new Error('other')]))).toBe(false);
  });

  it.each(['refuse', 'hang up', 'say nothing'] as const)(
    'holds for what pg throws of servers that %s',
    async (behaviour) => {
      const error = await connectError(behaviour);
      expect(error).toBeInstanceOf(Error);
      expect(isTransient(error)).toBe(true);
      expect(isConnectionLost(error)).toBe(true);
    },
  );

  it('holds for a closed client', async () => {
    const client = new pg.Client();
    await client.end();
    const error: unknown = await client.query('select 1').catch((reason: unknown) => reason);
    expect(isTransient(error)).toBe(true);
  });

  it('believes what our own errors say', () => {
    expect(isTransient(new TailraceError('TIMEOUT', 'later', { retryable: true }))).toBe(true);
    expect(isTransient(new TailraceError('LEASE_LOST', 'gone'))).toBe(false);
  });

  it('does not hold for mistakes in programs', () => {
    expect(isTransient(new TypeError('x is not a function'))).toBe(false);
    expect(isTransient('Connection terminated')).toBe(false);
    expect(isTransient(undefined)).toBe(false);
  });
});

describe('isConnectionLost', () => {
  it('tells an ended session from a failed statement', () => {
    expect(isConnectionLost(fromServer('57P01'))).toBe(true);
    expect(isConnectionLost(fromServer('40P01'))).toBe(false);
    expect(isConnectionLost(fromServer('53300'))).toBe(false);
  });
});

describe('sqlStateOf', () => {
  it('reads codes of the server, not those of the network', () => {
    expect(sqlStateOf(fromServer('23505'))).toBe('23505');
    expect(sqlStateOf(withCode('EPIPE'))).toBeUndefined(); // five capitals, as a SQLSTATE has
    expect(sqlStateOf(new Error('plain'))).toBeUndefined();
  });
});
