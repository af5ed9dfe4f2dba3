const SEED = 0x9747b28c | 0;
const MULTIPLIER = 0x5bd1e995;

/**
 * The 32-bit hash (signed, as in Java) by which Java Kafka's default partitioner places a key: murmur2 with Kafka's seed, over
 * `bytes[start]` to `bytes[end - 1]`. Reads the bytes in place and allocates nothing.
 *
 * @see https://github.com/aappleby/smhasher/blob/master/src/MurmurHash2.cpp
 */
export function murmur2(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
  const length = end - start;
  const wholeWords = end - (length & 3);
  let hash = SEED ^ length;
  let at = start;
  for (; at < wholeWords; at += 4) hash = Math.imul(hash, MULTIPLIER) ^ mixed(littleEndian(bytes, at, 4));
  if (at < end) hash = Math.imul(hash ^ littleEndian(bytes, at, end - at), MULTIPLIER);
  hash = Math.imul(hash ^ (hash >>> 13), MULTIPLIER);
  return hash ^ (hash >>> 15);
}

/**
 * What a source tells the relay of a key: {@link murmur2} of its UTF-8 bytes, made positive as Kafka does (by dropping the
 * sign bit); -1 for no key.
 */
export function keyHash(key: string | null): number {
  if (key === null) return -1;
  return positive(murmur2(Buffer.from(key, 'utf8')));
}

/** Makes a {@link murmur2} hash positive the way Kafka does. */
export function positive(hash: number): number {
  return hash & 0x7fffffff;
}

/**
 * The partition of a key's hash among `count` partitions: the one that Java Kafka's default partitioner chooses.
 *
 * @param hash from {@link keyHash}, not negative: where there is no key, the choice is the caller's.
 */
export function partitionOf(hash: number, count: number): number {
  return hash % count;
}

/**
 * The partition of a key's hash in a topic that was given more partitions: `counts` are the numbers of partitions that it
 * has had, in ascending order. A key goes to one of the partitions that were added last if that is where
 * {@link partitionOf} puts it, else it stays where it was. So no key moves between partitions that were there before;
 * and where each count is a multiple of the one before, this is the partition that Java Kafka's default partitioner
 * chooses among the last count. After one change all partitions have the same share of the keys.
 *
 * @param hash from {@link keyHash}, not negative.
 */
export function partitionAmong(hash: number, counts: readonly number[]): number {
  for (let at = counts.length - 1; at > 0; at -= 1) {
    const partition = partitionOf(hash, counts[at] ?? 1);
    if (partition >= (counts[at - 1] ?? 0)) return partition;
  }
  return partitionOf(hash, counts[0] ?? 1);
}

function mixed(word: number): number {
  const product = Math.imul(word, MULTIPLIER);
  return Math.imul(product ^ (product >>> 24), MULTIPLIER);
}

/** 1 to 4 bytes as a little-endian integer. */
function littleEndian(bytes: Uint8Array, at: number, count: number): number {
  let word = bytes[at] ?? 0;
  if (count > 1) word |= (bytes[at + 1] ?? 0) << 8;
  if (count > 2) word |= (bytes[at + 2] ?? 0) << 16;
  if (count > 3) word |= (bytes[at + 3] ?? 0) << 24;
  return word;
}
