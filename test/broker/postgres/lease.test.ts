import { describe, expect, it } from 'vitest';
import { assertSameCluster, decideLease, type LeaseRow } from '../../../src/broker/postgres/lease.ts';

const row: LeaseRow = {
  epoch: '7',
  holder: 'a',
  backendPid: 42,
  expiresAt: '2026-01-01 00:00:00+00',
  remainingMs: 10_000,
  connected: true,
  systemIdentifier: '1',
  timeline: 1,
};
const gone = { ...row, connected: false };

describe('decideLease', () => {
  it('creates a lease that is not there', () => {
    expect(decideLease(undefined, undefined, 500)).toEqual({ action: 'create' });
  });

  it('takes an expired one, whether its holder is connected or not', () => {
    for (const remainingMs of [0, -1]) {
      expect(decideLease({ ...row, remainingMs }, undefined, 500)).toMatchObject({
        action: 'take over',
        why: 'expired',
      });
      expect(decideLease({ ...gone, remainingMs }, row, 500)).toMatchObject({ action: 'take over', why: 'expired' });
    }
  });

  it('tells one that was given up from one whose holder fell silent', () => {
    const free = { ...gone, backendPid: 0, remainingMs: -1 };
    expect(decideLease(free, undefined, 500)).toMatchObject({ action: 'take over', why: 'free' });
  });

  it('waits for a live one, but not beyond its end', () => {
    expect(decideLease(row, undefined, 500)).toEqual({ action: 'wait', waitMs: 500, holder: 'a' });
    expect(decideLease({ ...row, remainingMs: 20 }, row, 500)).toMatchObject({ action: 'wait', waitMs: 21 });
  });

  it('takes one whose holder was gone at two looks in a row, and has done nothing between them', () => {
    expect(decideLease(gone, gone, 500)).toMatchObject({ action: 'take over', why: 'holder gone' });
  });

  it.each([
    ['at the first look', gone, undefined],
    ['only now', gone, row],
    ['only before', row, gone],
    ['but renewed it', { ...gone, expiresAt: 'later' }, gone],
    ['but connected again in between', { ...gone, backendPid: 43 }, gone],
    ['but somebody else took it', { ...gone, epoch: '8' }, gone],
  ])('waits where the holder was gone %s', (_, now, before) => {
    expect(decideLease(now, before, 500)).toMatchObject({ action: 'wait' });
  });
});

describe('assertSameCluster', () => {
  const here = { systemIdentifier: '1', timeline: 1 };

  it('returns the cluster where nothing was written, or on the same one', () => {
    expect(assertSameCluster({ cluster: here, row: undefined }, '"tailrace"')).toEqual(here);
    expect(assertSameCluster({ cluster: here, row }, '"tailrace"')).toEqual(here);
  });

  it('refuses another cluster, another timeline, and a standby', () => {
    const refused = (cluster: typeof here | undefined): unknown => {
      try {
        return assertSameCluster({ cluster, row }, '"tailrace"');
      } catch (error) {
        return error;
      }
    };
    expect(refused({ ...here, timeline: 2 })).toMatchObject({ code: 'WRONG_CLUSTER' });
    expect(refused({ ...here, systemIdentifier: '2' })).toMatchObject({ code: 'WRONG_CLUSTER' });
    expect(refused(undefined)).toMatchObject({ code: 'HOT_STANDBY' });
  });
});
