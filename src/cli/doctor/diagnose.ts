import { MOST_COUNTED } from '../../admin/figures.ts';
import { duration } from '../../source/wal/wal-budget.ts';
import { whyNoWal } from '../../source/preflight.ts';
import { type DoctorFacts, type HeldRows, type LeaseHealth, type SlotHealth, type WorkKind } from './facts.ts';
import { forecast } from './slot-growth.ts';

export type Level = 'ok' | 'warn' | 'fail';

/** One thing that was looked at. `why` and `mend` say why it matters and what mends it, where something is wrong. */
export interface Finding {
  readonly check: string;
  readonly level: Level;
  readonly what: string;
  readonly why?: string;
  readonly mend?: string;
}

/** Judges the facts. `work`: what the role is meant for, so that a right that it lacks for that is a failure. */
export function diagnose(facts: DoctorFacts, work?: WorkKind): Finding[] {
  return [server(facts), standby(facts), clock(facts), commits(facts), schema(facts), rights(facts, work)]
    .concat(facts.source === undefined || !facts.source.outboxFound ? [] : [outboxSafety(facts)])
    .concat([walLevel(facts), ...walRoom(facts), walSenderTimeout(facts), walLimit(facts)])
    .concat(
      facts.source === undefined || !facts.source.outboxFound ? [] : [publication(facts), replicationRight(facts)],
    )
    .concat([
      slot(facts),
      outboxPartitions(facts),
      processedPartitions(facts),
      relay(facts),
      relayLag(facts),
      relayDeadLetters(facts),
    ])
    .concat(maintenance(facts), groups(facts), outlooks(facts));
}

/** The worst level. */
export function worst(findings: readonly Finding[]): Level {
  const levels: readonly Level[] = ['fail', 'warn'];
  return levels.find((level) => findings.some((finding) => finding.level === level)) ?? 'ok';
}

const ok = (check: string, what: string): Finding => ({ check, level: 'ok', what });
const warn = (check: string, what: string, why: string, mend: string): Finding => ({
  check,
  level: 'warn',
  what,
  why,
  mend,
});
const fail = (check: string, what: string, why: string, mend: string): Finding => ({
  check,
  level: 'fail',
  what,
  why,
  mend,
});

function unread(check: string): Finding {
  return warn(
    check,
    'Not looked at: this role may not read the tables.',
    'What is wrong there stays unseen.',
    'Run the doctor as the owner of the schema.',
  );
}

const OLDEST_VERSION = 150_000;

function server({ server: { version, versionNumber } }: DoctorFacts): Finding {
  if (versionNumber >= OLDEST_VERSION) return ok('server', `Postgres ${version}.`);
  return fail(
    'server',
    `Postgres ${version}.`,
    'tailrace needs what came with 15.',
    'Upgrade the server to 15 or later.',
  );
}

function standby({ server: { inRecovery } }: DoctorFacts): Finding {
  if (!inRecovery) return ok('primary', 'This server is a primary.');
  return fail(
    'primary',
    'This server is a standby.',
    'Nothing can be published, relayed or handled on it.',
    'Use the URL of the primary.',
  );
}

const MOST_CLOCK_DIFFERENCE_MS = 1_000;

function clock({ clockDifferenceMs }: DoctorFacts): Finding {
  const ms = Math.round(clockDifferenceMs);
  if (Math.abs(ms) <= MOST_CLOCK_DIFFERENCE_MS)
    return ok('clock', `The clocks of server and client differ by ${ms} ms.`);
  return warn(
    'clock',
    `The server's clock is ${Math.abs(ms)} ms ${ms > 0 ? 'ahead of' : 'behind'} the client's.`,
    'Leases do not depend on it, but the times in messages and logs mislead.',
    'Set both by NTP: timedatectl set-ntp true',
  );
}

function commits({ server: { synchronousCommit } }: DoctorFacts): Finding {
  if (synchronousCommit !== 'off') return ok('synchronous_commit', `It is ${synchronousCommit}.`);
  return warn(
    'synchronous_commit',
    'It is off for this role.',
    'A crash of the server loses transactions whose commit was confirmed, and their messages with them. The log itself is written with it on.',
    'alter system reset synchronous_commit; select pg_reload_conf()',
  );
}

function schema({ schema: name, hasSchema, version, knownVersion }: DoctorFacts): Finding {
  const migrate = `tailrace migrate --schema ${name}`;
  const why = 'Programs of this version need its tables and functions.';
  if (!hasSchema || version === 0) return fail('schema', `There are no tables in the schema ${name}.`, why, migrate);
  if (version === undefined) return unread('schema');
  if (version < knownVersion) {
    return fail('schema', `The schema is at migration ${version}, expected ${knownVersion}.`, why, migrate);
  }
  if (version === knownVersion) return ok('schema', `The schema ${name} is at migration ${version}.`);
  return fail(
    'schema',
    `The schema is at migration ${version}; this version knows them up to ${knownVersion}.`,
    'What a later version changed is not known to this one.',
    'npm install tailrace@latest',
  );
}

const WORK: Readonly<Record<WorkKind, string>> = { app: 'publish', relay: 'relay', consumer: 'consume' };
const GROUP_ROLE: Readonly<Record<WorkKind, string>> = { app: 'app', relay: 'relay_wal', consumer: 'consumer' };

function rights(facts: DoctorFacts, work: WorkKind | undefined): Finding {
  const {
    missingRights,
    server: { role },
    schema: name,
    hasSchema,
  } = facts;
  const kinds = Object.keys(WORK) as WorkKind[];
  const able = hasSchema ? kinds.filter((kind) => missingRights[kind].length === 0) : [];
  const grant = (kind: WorkKind): string => `tailrace init; grant ${name}_${GROUP_ROLE[kind]} to ${role}`;
  if (work !== undefined && !able.includes(work)) {
    const missing = missingRights[work].join(', ') || 'everything';
    return fail('rights', `The role ${role} lacks ${missing}.`, `It cannot ${WORK[work]}.`, grant(work));
  }
  if (able.length > 0) return ok('rights', `The role ${role} may ${able.map((kind) => WORK[kind]).join(', ')}.`);
  return fail(
    'rights',
    `The role ${role} may neither publish nor relay nor consume.`,
    'It is of no use to a program.',
    grant('app'),
  );
}

function outboxSafety({ source, schema: name }: DoctorFacts): Finding {
  const outbox = `${name}.outbox`;
  if (source?.outboxLogged === false) {
    return fail(
      'outbox',
      'A partition of the outbox is UNLOGGED.',
      'A crash of the server empties it, and the WAL never shows it.',
      `alter table <the partition> set logged`,
    );
  }
  if (source?.rowSecurityActive === true) {
    return fail(
      'outbox',
      'Row security hides rows of the outbox from this role.',
      'A relay of this role would lose what it cannot see.',
      `alter table ${outbox} disable row level security`,
    );
  }
  if (source !== undefined && source.positionCache !== 1) {
    return fail(
      'outbox',
      `The identity of the outbox hands out ${source.positionCache} positions at a time.`,
      'Positions then do not follow the order of inserts, so messages of one key could change places.',
      `alter sequence ${outbox}_position_seq cache 1`,
    );
  }
  return ok('outbox', 'The outbox is logged, shows all rows, and numbers them one by one.');
}

const POLLS = 'Relays poll instead: it works, with more load on the database and more delay.';

function walLevel({ server: { walLevel: level } }: DoctorFacts): Finding {
  if (level === 'logical') return ok('wal_level', 'It is logical.');
  return warn(
    'wal_level',
    `It is ${level}, expected logical.`,
    POLLS,
    `alter system set wal_level = 'logical'; then restart the server`,
  );
}

function walRoom({ server: { freeSlots, freeWalSenders }, slot: found }: DoctorFacts): Finding[] {
  const missing = (name: string, what: string): Finding =>
    warn(
      name,
      `No ${what} is free.`,
      `A relay cannot read the WAL. ${POLLS}`,
      `alter system set ${name} = '20'; then restart the server`,
    );
  const needsSlot = found === undefined;
  const needsSender = found?.active !== true;
  return [
    freeSlots < 1 && needsSlot
      ? missing('max_replication_slots', 'replication slot')
      : ok('max_replication_slots', `${freeSlots} are free.`),
    freeWalSenders < 1 && needsSender
      ? missing('max_wal_senders', 'WAL sender')
      : ok('max_wal_senders', `${freeWalSenders} are free.`),
  ];
}

const SHORTEST_SENDER_TIMEOUT_MS = 5_000;

function walSenderTimeout({ server: { walSenderTimeoutMs: ms } }: DoctorFacts): Finding {
  const mend = `alter system set wal_sender_timeout = '60s'; select pg_reload_conf()`;
  if (ms === 0) {
    return warn(
      'wal_sender_timeout',
      'It is off.',
      'The server never notices that a relay is gone without a word, and keeps its slot in use.',
      mend,
    );
  }
  if (ms < SHORTEST_SENDER_TIMEOUT_MS) {
    return warn('wal_sender_timeout', `It is ${ms} ms.`, 'A short stall of the network ends the stream.', mend);
  }
  return ok('wal_sender_timeout', `It is ${ms} ms.`);
}

function walLimit({ server: { slotWalLimitBytes } }: DoctorFacts): Finding {
  if (slotWalLimitBytes !== undefined) return ok('max_slot_wal_keep_size', `It is ${bytes(slotWalLimitBytes)}.`);
  return warn(
    'max_slot_wal_keep_size',
    'There is no limit.',
    'A slot without a relay holds WAL back until the disk is full and the database stops.',
    `alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf()`,
  );
}

/** A slot that is older than its publication does not stream: a relay makes it anew. */
function publication({
  source,
  schema: name,
  slot: found,
  slotName,
  server: { walLevel: level },
}: DoctorFacts): Finding {
  const problem = source && whyNoWal({ ...source, walLevel: 'logical', mayReplicate: true }, name);
  const remake = `drop publication if exists ${name}; create publication ${name} for table ${name}.outbox (position, topic, key, tx) with (publish = 'insert', publish_via_partition_root = true)`;
  if (problem === undefined) return ok('publication', `The publication ${name} shows what a relay needs.`);
  return warn(
    'publication',
    `${problem.charAt(0).toUpperCase()}${problem.slice(1)}.`,
    level === 'logical' ? POLLS : 'It will be needed once wal_level is logical.',
    `${remake}${found === undefined ? '' : `; stop the relay; select pg_drop_replication_slot('${slotName}'); start the relay`}`,
  );
}

function replicationRight({ source, server: { role }, missingRights }: DoctorFacts): Finding {
  if (source?.mayReplicate === true) return ok('replication', `The role ${role} may read the WAL.`);
  if (missingRights.relay.length > 0)
    return ok('replication', `The role ${role} may not read the WAL, and is none of a relay.`);
  return warn(
    'replication',
    `The role ${role} has no REPLICATION attribute.`,
    `If it is the relay's: ${POLLS}`,
    `alter role ${role} replication`,
  );
}

const WARN_SHARE = 0.5;
const FAIL_SHARE = 0.8;

function slot(facts: DoctorFacts): Finding {
  const {
    slot: found,
    slotName,
    server: { slotWalLimitBytes, walLevel: level },
  } = facts;
  const drop = `select pg_drop_replication_slot('${slotName}')`;
  if (found === undefined) {
    if (level !== 'logical') return ok('slot', `There is no slot ${slotName}, and none can be.`);
    return warn(
      'slot',
      `There is no slot ${slotName}.`,
      'No relay has read the WAL yet, or it polls, or somebody has dropped the slot. A relay in WAL mode makes it when it starts; nothing is lost, for the outbox holds every message.',
      'tailrace relay',
    );
  }
  if (!found.isOurs) {
    return fail(
      'slot',
      `The slot ${slotName} was made for something else.`,
      'Relays refuse it.',
      'Name another one: tailrace relay --slot <name>',
    );
  }
  if (found.walStatus === 'lost') {
    return fail(
      'slot',
      `The slot ${slotName} is lost: the server has removed WAL that it needs.`,
      'Nothing is lost, for the outbox holds every message; but nothing reads the WAL until a relay has made the slot anew, which it does when it starts.',
      'tailrace relay',
    );
  }
  const share = slotWalLimitBytes === undefined ? 0 : found.retainedBytes / Math.max(1, slotWalLimitBytes);
  const held = `The slot ${slotName} holds ${bytes(found.retainedBytes)} of WAL`;
  const outlook = outlookOf(found, slotWalLimitBytes);
  if (found.walStatus === 'unreserved' || share >= FAIL_SHARE) {
    return fail(
      'slot',
      `${held}: ${percent(share)} of max_slot_wal_keep_size.${outlook}`,
      'The server is about to remove WAL that the slot needs.',
      found.active
        ? 'See why the relay is slow: tailrace relay logs it'
        : `tailrace relay; or, if there is to be none: ${drop}`,
    );
  }
  if (share >= WARN_SHARE) {
    return warn(
      'slot',
      `${held}: ${percent(share)} of max_slot_wal_keep_size.${outlook}`,
      'At 100 % the slot is lost, and the relay has to read the outbox instead.',
      `tailrace relay; or, if there is to be none: ${drop}`,
    );
  }
  if (!found.active) {
    return warn(
      'slot',
      `${held}, and nobody reads it.${outlook}`,
      'The server keeps all WAL for it until somebody does.',
      `tailrace relay; or, if there is to be none: ${drop}`,
    );
  }
  return ok('slot', `${held}; a relay reads it.`);
}

/** Who holds the WAL, and when there will be too much of it. */
function outlookOf({ growth }: SlotHealth, budgetBytes: number | undefined): string {
  if (growth === undefined || budgetBytes === undefined) return '';
  return ` Held by ${growth.heldBy}. ${forecast(growth, budgetBytes)}`;
}

/** Two partitions of the size that the migrations make. */
const FEW_POSITIONS = 4_000_000;

function outboxPartitions({ outbox, schema: name, hasSchema }: DoctorFacts): Finding {
  if (outbox === undefined)
    return hasSchema ? unread('outbox partitions') : ok('outbox partitions', 'There is no outbox yet.');
  const { positionsAhead } = outbox;
  const mend = `select ${name}.ensure_outbox_partitions()`;
  const why = 'Without a partition for its position, a message cannot be published. A running relay makes them ahead.';
  if (positionsAhead <= 0) return fail('outbox partitions', 'There is no room left in the outbox.', why, mend);
  if (positionsAhead < FEW_POSITIONS)
    return warn('outbox partitions', `There is room for ${positionsAhead} messages.`, why, mend);
  return ok('outbox partitions', `There is room for ${positionsAhead} messages.`);
}

function processedPartitions({ processed, schema: name, hasSchema }: DoctorFacts): Finding {
  if (processed === undefined) {
    return hasSchema
      ? unread('processed_message partitions')
      : ok('processed_message partitions', 'There is no table yet.');
  }
  const { weeksAhead, held } = processed;
  if (weeksAhead >= 1 && held !== undefined && held.forSeconds > 2 * 24 * 3600) return heldRows(held);
  if (weeksAhead >= 1) return ok('processed_message partitions', `They reach ${weeksAhead} weeks ahead.`);
  return warn(
    'processed_message partitions',
    weeksAhead < 0 ? 'There is none for this week.' : 'There is none for next week.',
    'Rows then go to the default partition, from which old ones cannot leave at once. A running consumer makes them ahead.',
    `select ${name}.ensure_processed_partitions()`,
  );
}

function heldRows({ group, topic, partition, places, forSeconds }: HeldRows): Finding {
  return warn(
    'processed_message partitions',
    `Old rows have waited for ${seconds(forSeconds)} for groups to go on, first of them ${group} in ${topic} partition ${partition}; ${places} places in all.`,
    'They may be read again there. Until then no old rows leave, of whatever group.',
    `Start the consumers of ${group}. If there are to be none any more: tailrace groups delete ${group}`,
  );
}

function relay({ lease, outbox, hasSchema }: DoctorFacts): Finding {
  if (lease === undefined) return hasSchema ? unread('relay') : ok('relay', 'There is nothing to relay yet.');
  const waits = (outbox?.waiting ?? 0) > 0;
  const level = waits ? fail : warn;
  const why = waits ? 'Messages wait in the outbox.' : 'Messages will wait in the outbox.';
  if (lease === null) return level('relay', 'No relay has run yet.', why, 'tailrace relay');
  if (lease.isHeld) return leading(lease);
  return level(
    'relay',
    `No relay runs: ${lease.holder} held the lease until ${seconds(lease.expiredSeconds)} ago.`,
    why,
    'tailrace relay',
  );
}

function leading({ holder, wantedMode, mode, modeReason }: LeaseHealth): Finding {
  if (mode === null) return ok('relay', `The relay ${holder} holds the lease.`);
  const reads = mode === 'wal' ? 'reads the WAL' : 'polls';
  const what = `The relay ${holder} holds the lease and ${reads}${wantedMode === mode ? ', as it was asked to' : ''}.`;
  if (wantedMode === null || wantedMode === mode) return ok('relay', what);
  return warn(
    'relay',
    `${what} It was asked for ${wantedMode}${modeReason === null ? '' : `: ${modeReason}`}.`,
    'It goes over as soon as it can.',
    'tailrace relay switch auto',
  );
}

const SLOW_RELAY_SECONDS = 10;
const STUCK_RELAY_SECONDS = 60;

function relayLag({ outbox, hasSchema }: DoctorFacts): Finding {
  if (outbox === undefined) return hasSchema ? unread('relay lag') : ok('relay lag', 'There is no outbox yet.');
  const { waiting, oldestWaitingSeconds: age } = outbox;
  if (waiting === 0) return ok('relay lag', 'The relay has read every message.');
  const count = waiting >= MOST_COUNTED ? `${MOST_COUNTED} or more` : String(waiting);
  const what = `${count} messages are not in the log yet, the oldest of those counted for ${seconds(age)}.`;
  if (age < SLOW_RELAY_SECONDS) return ok('relay lag', what);
  const level = age < STUCK_RELAY_SECONDS ? warn : fail;
  return level(
    'relay lag',
    what,
    'Nobody can handle them before.',
    'See the log of the relay, or start one: tailrace relay',
  );
}

function relayDeadLetters({ relayDeadLetters: count, hasSchema }: DoctorFacts): Finding {
  const check = 'relay dead letters';
  if (count === undefined) return hasSchema ? unread(check) : ok(check, 'There are none.');
  if (count === 0) return ok(check, 'There are none.');
  return warn(
    check,
    `${count} messages could not be routed.`,
    'Nobody can handle them before they are: see their reasons, mend them, and let the relay try again.',
    'tailrace dead-letters list --relay; tailrace dead-letters retry --all',
  );
}

const LATE_GROUP_SECONDS = 300;

function groups({ groups: rows, hasSchema }: DoctorFacts): Finding[] {
  if (rows === undefined) return hasSchema ? [unread('groups')] : [];
  if (rows.length === 0) return [ok('groups', 'There are no consumer groups in this database.')];
  return rows.flatMap(({ name, members, lag, seconds: late, dead, beyond, topics }) => {
    const check = `group ${name}`;
    const nowhere = topics.length === 0 ? 'no place in any topic' : 'its log is in another database';
    const place = lag === null ? nowhere : `${lag} messages and ${seconds(late ?? 0)} behind`;
    const isBehind = lag !== null && lag !== '0' && (members === 0 || (late ?? 0) > LATE_GROUP_SECONDS);
    const show = `tailrace groups show ${name}`;
    const main = isBehind
      ? warn(
          check,
          `${members} members, ${place}.`,
          members === 0 ? 'Nobody handles its messages.' : 'It does not keep up, or is stuck.',
          members === 0 ? 'Start a consumer of the group.' : show,
        )
      : ok(check, `${members} members, ${place}.`);
    const found = [main];
    if (beyond > 0) {
      found.push(
        fail(
          check,
          `Its place is beyond the end of the log in ${beyond} partitions.`,
          'The log was restored or has lost its tail: what is appended up to there will not be handled.',
          `tailrace groups show ${name}; then tailrace groups seek ${name} --help`,
        ),
      );
    }
    if (dead !== '0') {
      found.push(
        warn(
          check,
          `${dead} dead letters.`,
          'These messages were not handled.',
          `tailrace dead-letters list --group ${name}`,
        ),
      );
    }
    return found;
  });
}

/** Full partitions of the outbox that are no reason to worry: the last one, kept for a day. */
const FEW_FULL_PARTITIONS = 2;
const LONG_AGO_SECONDS = 24 * 3600;

function maintenance({ maintenance: found }: DoctorFacts): Finding[] {
  if (found === undefined) return [];
  const check = 'maintenance';
  const { secondsAgo, isOwner, waiting, reason, full } = found;
  const why = 'The outbox grows until its old partitions leave.';
  const byOwner = 'Run as the owner of the schema, now and then: tailrace maintain';
  if (full <= FEW_FULL_PARTITIONS) return [ok(check, `${full} partitions of the outbox are full.`)];
  if (secondsAgo === undefined || secondsAgo > LONG_AGO_SECONDS) {
    return [warn(check, `${full} partitions of the outbox are full, and nobody removes them.`, why, byOwner)];
  }
  if (!isOwner) {
    const what = `${full} partitions of the outbox are full, and the relay's role may not remove them.`;
    return [warn(check, what, why, byOwner)];
  }
  if (waiting <= FEW_FULL_PARTITIONS)
    return [ok(check, `${full} partitions of the outbox are full, ${waiting} are due.`)];
  const what = `${waiting} partitions of the outbox are due to leave, and wait: ${reason ?? 'for the next round'}.`;
  return [
    warn(check, what, why, 'End what it waits for: see pg_stat_activity, and tailrace dead-letters list --relay'),
  ];
}

/** A group without an outlook is at the end, or nothing limits its topics. */
function outlooks({ outlooks: found = [] }: DoctorFacts): Finding[] {
  return found.map(({ group, topic, partition, secondsToLoss, used }) => {
    const check = `retention of group ${group}`;
    const place = `${topic}/${partition}`;
    const mend = `tailrace groups show ${group}; to keep records for longer: tailrace topics alter ${topic} --retention none --retention-bytes none`;
    if (secondsToLoss <= 0) {
      const what = `Retention has reached the group in ${place}.`;
      return fail(check, what, 'It loses messages that it has not handled, or stands still before them.', mend);
    }
    const what = `In ${place} retention reaches the group in ${duration(secondsToLoss * 1000)}; it has used ${percent(used)} of what the topic keeps.`;
    if (used < WARN_SHARE) return ok(check, what);
    return (used < FAIL_SHARE ? warn : fail)(check, what, 'It then loses messages that it has not handled.', mend);
  });
}

function bytes(count: number): string {
  if (count < 1024 ** 2) return `${Math.round(count / 1024)} kB`;
  return count < 1024 ** 3 ? `${Math.round(count / 1024 ** 2)} MB` : `${(count / 1024 ** 3).toFixed(1)} GB`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function seconds(count: number): string {
  return `${Math.round(count)} s`;
}
