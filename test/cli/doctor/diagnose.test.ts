import { describe, expect, it } from 'vitest';
import { diagnose, type Finding, worst } from '../../../src/cli/doctor/diagnose.ts';
import type { DoctorFacts, SlotHealth } from '../../../src/cli/doctor/facts.ts';
import { forecast, type SlotGrowth } from '../../../src/cli/doctor/slot-growth.ts';

const server: DoctorFacts['server'] = {
  version: '18.1',
  versionNumber: 180_001,
  inRecovery: false,
  role: 'shop',
  walLevel: 'logical',
  freeSlots: 9,
  freeWalSenders: 9,
  walSenderTimeoutMs: 60_000,
  slotWalLimitBytes: 1_000_000_000,
  synchronousCommit: 'on',
};

const source: NonNullable<DoctorFacts['source']> = {
  serverVersion: 180_001,
  walLevel: 'logical',
  inRecovery: false,
  mayReplicate: true,
  walSenderTimeoutMs: 60_000,
  maxSlotWalKeepBytes: 1_000_000_000,
  database: 'shop',
  databaseOid: '5',
  outboxFound: true,
  outboxLogged: true,
  rowSecurityActive: false,
  positionCache: 1,
  publication: {
    publishesInserts: true,
    viaRoot: true,
    columns: ['position', 'topic', 'key', 'tx'],
    rowFilter: undefined,
  },
};

const slot: SlotHealth = { active: true, isOurs: true, walStatus: 'reserved', retainedBytes: 1_000 };

/** 100 MB in a second. */
const growth: SlotGrowth = {
  samples: [
    { atMs: 5_000, retainedBytes: 500_000_000 },
    { atMs: 6_000, retainedBytes: 600_000_000 },
  ],
  heldBy: 'the relay, which is 500 MiB behind',
  average: undefined,
};

describe('the forecast of a slot', () => {
  const still = growth.samples.map((sample) => ({ ...sample, retainedBytes: 600_000_000 }));
  const average = { bytesPerSecond: 1_000, since: '2026-01-31' };
  it.each<[string, SlotGrowth, number, string]>([
    ['by what it saw', growth, 1_000_000_000, 'Full in about 4 s at the pace of the last 1.0 s.'],
    [
      'by the average, where nothing happens now',
      { ...growth, samples: still, average },
      636_000_000,
      'Full in about 10 h at the average pace since 2026-01-31.',
    ],
    [
      'by what it saw, where that is sooner',
      { ...growth, average },
      1_000_000_000,
      'Full in about 4 s at the pace of the last 1.0 s.',
    ],
    [
      'by the average, where that is sooner',
      { ...growth, average: { ...average, bytesPerSecond: 200_000_000 } },
      1_000_000_000,
      'Full in about 2 s at the average pace since 2026-01-31.',
    ],
    ['of one that does not grow', { ...growth, samples: still }, 1_000_000_000, 'It did not grow in the last 1.0 s.'],
    [
      'of one that shrinks',
      {
        ...growth,
        samples: [
          { atMs: 0, retainedBytes: 9 },
          { atMs: 2_000, retainedBytes: 1 },
        ],
      },
      10,
      'It did not grow in the last 2.0 s.',
    ],
    ['of one that is full', growth, 600_000_000, 'The budget is used up.'],
  ])('%s', (_what, seen, budgetBytes, said) => {
    expect(forecast(seen, budgetBytes)).toBe(said);
  });
});

const healthy: DoctorFacts = {
  schema: 'tailrace',
  slotName: 'tailrace_5',
  server,
  clockDifferenceMs: 3,
  hasSchema: true,
  maySeeSchema: true,
  version: 3,
  knownVersion: 3,
  missingRights: { app: [], relay: [], consumer: [] },
  source,
  slot,
  outbox: { positionsAhead: 16_000_000, waiting: 0, oldestWaitingSeconds: 0 },
  processed: { weeksAhead: 4, held: undefined },
  lease: { holder: 'host-1', isHeld: true, expiredSeconds: 0, wantedMode: null, mode: 'wal', modeReason: null },
  relayDeadLetters: 0,
  groups: [
    {
      ...{ name: 'billing', generation: 1, members: 2, dead: '0', lag: '0', seconds: 0, beyond: 0 },
      ...{ topics: ['orders'], unknown_topics: [], in_cutover: false },
    },
  ],
  outlooks: [],
  maintenance: { secondsAgo: 30, isOwner: true, waiting: 0, reason: null, full: 1 },
};

const wrong = (facts: DoctorFacts): string[] =>
  diagnose(facts)
    .filter(({ level }) => level !== 'ok')
    .map(({ level, check }) => `${level} ${check}`);

it('finds nothing where nothing is wrong', () => {
  expect(wrong(healthy)).toEqual([]);
  expect(worst(diagnose(healthy))).toBe('ok');
  expect(diagnose(healthy).length).toBeGreaterThanOrEqual(18);
});

const group = healthy.groups![0]!;
const outlook = { group: 'billing', topic: 'orders', partition: 1, secondsToLoss: 7_200, used: 0.4 };
const kept = { secondsAgo: 30, isOwner: true, waiting: 0, reason: null, full: 9 };
const waiting = { positionsAhead: 16_000_000, waiting: 5, oldestWaitingSeconds: 2 };
const released = {
  holder: 'host-1',
  isHeld: false,
  expiredSeconds: 30,
  wantedMode: null,
  mode: 'wal',
  modeReason: null,
} as const;
const asked = { ...released, isHeld: true, wantedMode: 'wal' };
const all = ['usage on the schema tailrace'];

describe('finds one thing at a time', () => {
  it.each<[string, Partial<DoctorFacts>, string[], RegExp]>([
    ['an old server', { server: { ...server, version: '14.9', versionNumber: 140_009 } }, ['fail server'], /14\.9/],
    ['a standby', { server: { ...server, inRecovery: true } }, ['fail primary'], /standby/],
    ['a clock ahead', { clockDifferenceMs: 7_200_000 }, ['warn clock'], /7200000 ms ahead of/],
    ['a clock behind', { clockDifferenceMs: -1_500 }, ['warn clock'], /1500 ms behind/],
    ['asynchronous commits', { server: { ...server, synchronousCommit: 'off' } }, ['warn synchronous_commit'], /off/],
    ['no tables', { version: 0 }, ['fail schema'], /no tables/],
    ['an old schema', { version: 2 }, ['fail schema'], /migration 2, expected 3/],
    ['a schema of a later version', { version: 4 }, ['fail schema'], /knows them up to 3/],
    ['migrations that cannot be read', { version: undefined }, ['warn schema'], /may not read/],
    [
      'a role for nothing',
      { missingRights: { app: all, relay: all, consumer: all } },
      ['fail rights'],
      /neither publish nor/,
    ],
    ['an UNLOGGED partition', { source: { ...source, outboxLogged: false } }, ['fail outbox'], /UNLOGGED/],
    ['row security', { source: { ...source, rowSecurityActive: true } }, ['fail outbox'], /Row security/],
    ['a cached identity', { source: { ...source, positionCache: 32 } }, ['fail outbox'], /32 positions at a time/],
    ['no logical WAL', { server: { ...server, walLevel: 'replica' }, slot: undefined }, ['warn wal_level'], /replica/],
    [
      'no free slot',
      { server: { ...server, freeSlots: 0 }, slot: undefined },
      ['warn max_replication_slots', 'warn slot'],
      /No replication slot is free/,
    ],
    [
      'no free WAL sender',
      { server: { ...server, freeWalSenders: 0 }, slot: { ...slot, active: false } },
      ['warn max_wal_senders', 'warn slot'],
      /No WAL sender is free/,
    ],
    ['no sender timeout', { server: { ...server, walSenderTimeoutMs: 0 } }, ['warn wal_sender_timeout'], /off/],
    [
      'a short sender timeout',
      { server: { ...server, walSenderTimeoutMs: 1_000 } },
      ['warn wal_sender_timeout'],
      /1000 ms/,
    ],
    [
      'no limit for WAL',
      { server: { ...server, slotWalLimitBytes: undefined } },
      ['warn max_slot_wal_keep_size'],
      /no limit/,
    ],
    ['no publication', { source: { ...source, publication: undefined } }, ['warn publication'], /does not exist/],
    [
      'a column less',
      { source: { ...source, publication: { ...source.publication!, columns: ['position', 'topic', 'key'] } } },
      ['warn publication'],
      /leaves out the columns tx/,
    ],
    ['no right to the WAL', { source: { ...source, mayReplicate: false } }, ['warn replication'], /REPLICATION/],
    ['no slot', { slot: undefined }, ['warn slot'], /no slot tailrace_5/],
    ['a slot of somebody else', { slot: { ...slot, isOurs: false } }, ['fail slot'], /something else/],
    ['a lost slot', { slot: { ...slot, active: false, walStatus: 'lost' } }, ['fail slot'], /is lost/],
    ['a slot that nobody reads', { slot: { ...slot, active: false } }, ['warn slot'], /nobody reads it/],
    ['half of the budget', { slot: { ...slot, retainedBytes: 500_000_000 } }, ['warn slot'], /50 %/],
    ['most of the budget', { slot: { ...slot, retainedBytes: 800_000_000 } }, ['fail slot'], /80 %/],
    [
      'half of the budget, and growing',
      { slot: { ...slot, retainedBytes: 600_000_000, growth } },
      ['warn slot'],
      /60 % of max_slot_wal_keep_size\. Held by the relay, which is 500 MiB behind\. Full in about 4 s at the pace of the last 1\.0 s\.$/,
    ],
    ['a slot about to be lost', { slot: { ...slot, walStatus: 'unreserved' } }, ['fail slot'], /holds/],
    [
      'little room',
      { outbox: { ...waiting, waiting: 0, positionsAhead: 3_999_999 } },
      ['warn outbox partitions'],
      /room for 3999999/,
    ],
    ['no room', { outbox: { ...waiting, waiting: 0, positionsAhead: 0 } }, ['fail outbox partitions'], /no room left/],
    [
      'no week ahead',
      { processed: { weeksAhead: 0, held: undefined } },
      ['warn processed_message partitions'],
      /next week/,
    ],
    [
      'old rows that are held',
      { processed: { weeksAhead: 4, held: { forSeconds: 300_000, group: 'g', topic: 't', partition: 1, places: 2 } } },
      ['warn processed_message partitions'],
      /waited for .* first of them g in t partition 1; 2 places/,
    ],
    ['no week', { processed: { weeksAhead: -1, held: undefined } }, ['warn processed_message partitions'], /this week/],
    ['no relay ever', { lease: null }, ['warn relay'], /No relay has run/],
    ['no relay', { lease: released }, ['warn relay'], /host-1 held the lease until 30 s ago/],
    ['no relay, and messages', { lease: released, outbox: waiting }, ['fail relay'], /held the lease/],
    [
      'a mode that cannot be',
      { lease: { ...asked, mode: 'polling', modeReason: 'no slot' } },
      ['warn relay'],
      /polls\. It was asked for wal: no slot/,
    ],
    [
      'what could not be routed',
      { relayDeadLetters: 7 },
      ['warn relay dead letters'],
      /7 messages could not be routed/,
    ],
    ['a slow relay', { outbox: { ...waiting, oldestWaitingSeconds: 30 } }, ['warn relay lag'], /5 messages.*30 s/],
    [
      'a stuck relay',
      { outbox: { ...waiting, waiting: 1_000_000, oldestWaitingSeconds: 90 } },
      ['fail relay lag'],
      /1000000 or more messages.*90 s/,
    ],
    [
      'a group without members',
      { groups: [{ ...group, members: 0, lag: '7' }] },
      ['warn group billing'],
      /0 members, 7 messages/,
    ],
    ['a late group', { groups: [{ ...group, lag: '7', seconds: 301 }] }, ['warn group billing'], /301 s behind/],
    [
      'a group that retention comes near to',
      { outlooks: [{ ...outlook, used: 0.6 }] },
      ['warn retention of group billing'],
      /In orders\/1 retention reaches the group in 2 h; it has used 60 %/,
    ],
    ['one that is nearer', { outlooks: [{ ...outlook, used: 0.8 }] }, ['fail retention of group billing'], /80 %/],
    [
      'one that it has reached',
      { outlooks: [{ ...outlook, secondsToLoss: 0, used: 1 }] },
      ['fail retention of group billing'],
      /has reached the group in orders\/1/,
    ],
    [
      'an outbox that nobody empties',
      { maintenance: { ...kept, secondsAgo: undefined } },
      ['warn maintenance'],
      /9 .* nobody/,
    ],
    ['one that was emptied long ago', { maintenance: { ...kept, secondsAgo: 1e6 } }, ['warn maintenance'], /nobody/],
    ['a relay that may not', { maintenance: { ...kept, isOwner: false } }, ['warn maintenance'], /may not remove/],
    [
      'one that has to wait',
      { maintenance: { ...kept, waiting: 3, reason: 'x' } },
      ['warn maintenance'],
      /3 .* wait: x/,
    ],
    [
      'a group beyond the end of the log',
      { groups: [{ ...group, beyond: 2 }] },
      ['fail group billing'],
      /beyond the end of the log in 2 partitions/,
    ],
    ['dead letters', { groups: [{ ...group, dead: '2' }] }, ['warn group billing'], /2 dead letters/],
  ])('%s', (_what, change, expected, message) => {
    const facts = { ...healthy, ...change };
    expect(wrong(facts)).toEqual(expected);
    const findings = diagnose(facts).filter(({ level }) => level !== 'ok');
    expect(findings.map(({ what }) => what).join('\n')).toMatch(message);
    for (const { why, mend } of findings) {
      expect(why).toMatch(/\.$/);
      expect(mend).toMatch(/\S/);
    }
  });

  it.each<[string, Partial<DoctorFacts>]>([
    ['a mode that was asked for', { lease: asked }],
    ['a relay that has not said how it reads', { lease: { ...asked, mode: null } }],
    ['messages that are under way', { outbox: waiting }],
    ['a group that catches up', { groups: [{ ...group, lag: '7', seconds: 299 }] }],
    ['a group whose log is elsewhere', { groups: [{ ...group, lag: null, seconds: null, members: 0 }] }],
    ['no groups', { groups: [] }],
    ['a full outbox that is not due', { maintenance: { ...kept } }],
    ['a group far from what retention removes', { outlooks: [{ ...outlook, used: 0.4 }] }],
    ['no free slot where ours is', { server: { ...server, freeSlots: 0, freeWalSenders: 0 } }],
    ['a role for one thing', { missingRights: { app: [], relay: all, consumer: all } }],
  ])('lets %s pass', (_what, change) => {
    expect(wrong({ ...healthy, ...change })).toEqual([]);
  });
});

it.each([
  ['elsewhere', ['orders'], '2 members, its log is in another database.'],
  ['gone', [], '2 members, no place in any topic.'],
])('says of a group without lag whether its topics are %s', (_what, topics, what) => {
  const facts = { ...healthy, groups: [{ ...group, lag: null, seconds: null, topics, unknown_topics: topics }] };
  expect(diagnose(facts).find(({ check }) => check === 'group billing')).toMatchObject({ level: 'ok', what });
});

it('knows what a role lacks for what it is meant for', () => {
  const facts = { ...healthy, missingRights: { app: [], relay: ['insert on log_entry'], consumer: all } };
  const rights = (findings: Finding[]): Finding | undefined => findings.find(({ check }) => check === 'rights');
  expect(rights(diagnose(facts, 'app'))).toMatchObject({ level: 'ok' });
  expect(rights(diagnose(facts, 'relay'))).toMatchObject({
    level: 'fail',
    what: expect.stringContaining('insert on log_entry'),
    mend: expect.stringContaining('grant tailrace_relay_wal to shop'),
  });
});

it('says of what it could not read that it did not', () => {
  const blind = {
    ...healthy,
    maySeeSchema: false,
    version: undefined,
    source: undefined,
    outbox: undefined,
    processed: undefined,
    lease: undefined,
    relayDeadLetters: undefined,
    groups: undefined,
  };
  expect(wrong(blind)).toEqual(
    [
      'schema',
      'outbox partitions',
      'processed_message partitions',
      'relay',
      'relay lag',
      'relay dead letters',
      'groups',
    ].map((check) => `warn ${check}`),
  );
});
