/** Builds the bytes that a server sends on a replication connection, for tests of the readers. */

function text(value: string): Buffer {
  return Buffer.concat([Buffer.from(value, 'utf8'), Buffer.from([0])]);
}

function u64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(value);
  return buffer;
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
}

function u16(value: number): Buffer {
  const buffer = Buffer.alloc(2);
  buffer.writeUInt16BE(value);
  return buffer;
}

export function begin(commitLsn: bigint, xid: number): Buffer {
  return Buffer.concat([Buffer.from('B'), u64(commitLsn), u64(0n), u32(xid)]);
}

export function commit(commitLsn: bigint, endLsn: bigint): Buffer {
  return Buffer.concat([Buffer.from('C\0'), u64(commitLsn), u64(endLsn), u64(0n)]);
}

export function relation(id: number, schema: string, name: string, columns: readonly string[]): Buffer {
  const parts = columns.map((column) => Buffer.concat([Buffer.from([0]), text(column), u32(25), u32(0)]));
  return Buffer.concat([
    Buffer.from('R'),
    u32(id),
    text(schema),
    text(name),
    Buffer.from('d'),
    u16(columns.length),
    ...parts,
  ]);
}

/** `undefined` stands for an unchanged out-of-line value. */
export type Column = string | null | undefined;

export function insert(relationId: number, columns: readonly Column[]): Buffer {
  const parts = columns.map((column) => {
    if (column === null) return Buffer.from('n');
    if (column === undefined) return Buffer.from('u');
    const bytes = Buffer.from(column, 'utf8');
    return Buffer.concat([Buffer.from('t'), u32(bytes.length), bytes]);
  });
  return Buffer.concat([Buffer.from('I'), u32(relationId), Buffer.from('N'), u16(columns.length), ...parts]);
}

/** Wraps a pgoutput message as WAL data. */
export function xlogData(change: Buffer): Buffer {
  return Buffer.concat([Buffer.from('w'), u64(1n), u64(1n), u64(0n), change]);
}

export function keepalive(walEnd: bigint, replyRequested: boolean): Buffer {
  return Buffer.concat([Buffer.from('k'), u64(walEnd), u64(0n), Buffer.from([replyRequested ? 1 : 0])]);
}

/** Wraps content as a protocol message. */
export function frame(type: string, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from(type), u32(content.length + 4), content]);
}
