import { TailraceError } from '../base/errors.ts';

/** What a {@link CopyBothReader} finds in the bytes of a replication connection. */
export interface CopyBothHandler {
  /** The content of one CopyData message: `buffer` from `start` to `end`. Valid only during the call. */
  copyData(buffer: Buffer, start: number, end: number): void;
  /** Any other whole message, with its type byte and length. Valid only during the call. */
  otherMessage(message: Buffer): void;
}

const COPY_DATA = 0x64; // 'd'
const HEADER_BYTES = 5;
/** The server sends no message over 1 GiB; a longer length means that the stream is not what it should be. */
const LONGEST_MESSAGE = 0x4000_0000;

/**
 * Cuts the bytes of a connection into protocol messages, however the network sliced them. Copies nothing but a message that
 * spans chunks, once.
 *
 * @see https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class CopyBothReader {
  readonly #handler: CopyBothHandler;
  /** Chunks of a message that is not complete yet, and their sum of bytes. */
  #parts: Buffer[] = [];
  #held = 0;
  #wanted = HEADER_BYTES;

  constructor(handler: CopyBothHandler) {
    this.#handler = handler;
  }

  /** @throws TailraceError `PROTOCOL_VIOLATION`: a length that no message can have. */
  push(chunk: Buffer): void {
    if (this.#held === 0) {
      this.#read(chunk);
      return;
    }
    this.#hold(chunk);
    if (this.#held < this.#wanted) return;
    const whole = Buffer.concat(this.#parts, this.#held);
    this.#parts = [];
    this.#held = 0;
    this.#read(whole);
  }

  #hold(part: Buffer): void {
    this.#parts.push(part);
    this.#held += part.length;
  }

  #read(buffer: Buffer): void {
    const { length } = buffer;
    let start = 0;
    this.#wanted = HEADER_BYTES;
    while (start + HEADER_BYTES <= length) {
      const end = start + 1 + messageLength(buffer, start);
      if (end > length) {
        this.#wanted = end - start;
        break;
      }
      if (buffer[start] === COPY_DATA) this.#handler.copyData(buffer, start + HEADER_BYTES, end);
      else this.#handler.otherMessage(buffer.subarray(start, end));
      start = end;
    }
    if (start < length) this.#hold(buffer.subarray(start));
  }
}

function messageLength(buffer: Buffer, start: number): number {
  const length = buffer.readUInt32BE(start + 1);
  if (length < 4 || length > LONGEST_MESSAGE) {
    throw new TailraceError(
      'PROTOCOL_VIOLATION',
      `The replication stream holds a message of ${length} bytes, expected 4 to ${LONGEST_MESSAGE}. The connection is not in step; reconnect.`,
      { retryable: true },
    );
  }
  return length;
}
