/** What a kind of process may do: the roles that `tailrace init` makes, without their prefix. */
export type RoleKind = 'app' | 'relay_wal' | 'relay_poll' | 'consumer' | 'migrator';

/** A role and what it is for. `tables` and `functions` are rights by name; the migrator owns everything and needs none. */
export interface RoleRights {
  readonly kind: RoleKind;
  readonly purpose: string;
  readonly tables: Readonly<Record<string, readonly string[]>>;
  readonly functions: readonly string[];
}

/** Never position and tx, which tell a reader where a message belongs: the table fills them in. */
const OUTBOX_COLUMNS =
  'message_id, topic, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at';

const RELAY = {
  tables: {
    migration: ['select'],
    outbox: ['select'],
    relay_lease: ['select', 'insert', 'update'],
    log_topic_growth: ['select', 'insert'],
    relay_batch: ['select', 'insert', 'delete'],
    log_topic: ['select', 'insert', 'update'],
    log_partition: ['select', 'insert', 'update (start)'],
    // Never changed: what outlives its outbox is deleted and inserted packed, in one transaction.
    log_entry: ['select', 'insert', 'delete'],
    log_segment: ['select', 'insert', 'update', 'delete'],
    log_compaction: ['select', 'insert', 'update'],
    log_maintenance: ['select', 'insert', 'update'],
    outbox_sealed: ['select'],
    relay_dead_letter: ['select', 'insert', 'update', 'delete'],
  },
  functions: ['ensure_outbox_partitions', 'summarize_outbox', 'add_partitions'],
} as const;

/** Every role with exactly what it needs. Nothing is for PUBLIC. */
export const ROLES: readonly RoleRights[] = [
  {
    kind: 'app',
    purpose: 'publishes, and reads nothing',
    tables: { outbox: [`insert (${OUTBOX_COLUMNS})`] },
    functions: ['publish', 'publish_in_key_order', 'lock_key', 'uuid_v7', 'claim_batch'],
  },
  { kind: 'relay_wal', purpose: 'a relay that reads the write-ahead log', ...RELAY },
  { kind: 'relay_poll', purpose: 'a relay that polls', ...RELAY },
  {
    kind: 'consumer',
    purpose: 'reads topics and handles messages',
    tables: {
      migration: ['select'],
      outbox: ['select'],
      log_topic: ['select'],
      log_partition: ['select'],
      log_topic_growth: ['select'],
      log_entry: ['select'],
      log_segment: ['select'],
      log_compaction: ['select'],
      log_maintenance: ['select'],
      // For trace and dead-letters, which tell what became of a message that is not in the log.
      relay_batch: ['select'],
      relay_dead_letter: ['select'],
      consumer_group: ['select', 'insert', 'update'],
      consumer_member: ['select', 'insert', 'update', 'delete'],
      consumer_cursor: ['select', 'insert', 'update'],
      processed_message: ['select', 'insert'],
      processed_round: ['select'],
      processed_hold: ['select', 'update'],
      processed_stray: ['select'],
      processed_late: ['select'],
      parked_message: ['select', 'insert', 'update', 'delete'],
      parked_audit: ['select', 'insert'],
      suspect_attempt: ['select', 'insert', 'update', 'delete'],
      inbox: ['select', 'insert', 'update', 'delete'],
      rate_bucket: ['select', 'insert', 'update'],
      work_range: ['select', 'insert', 'update', 'delete'],
    },
    functions: [
      'ensure_processed_partitions',
      'expire_processed_messages',
      'drop_processed_partitions',
      'assert_assignment',
      'assert_range',
      'advance_cursor',
      'extend_inbox',
      'trim_inbox',
      'take_rate_tokens',
      'remove_ephemeral_groups',
    ],
  },
  {
    kind: 'migrator',
    purpose: 'owns the schema, and migrates it',
    tables: { producer: ['select'], former_group: ['select'] }, // others only through functions
    functions: ['refuse_sealed', 'keep_late_processed', 'first_processed_week', 'begin_above_former_group'],
  },
];
