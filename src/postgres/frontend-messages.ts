/**
 * Messages of a client to a server of Postgres, one behind the other in one piece of memory. All values are text.
 *
 * @see https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
export class FrontendMessages {
  #bytes = Buffer.allocUnsafe(1024);
  #length = 0;
  /** Where the length of the message stands that is being written. */
  #lengthAt = 0;

  /** Forgets a prepared statement; it need not be there. */
  close(name: string): void {
    this.#begin('C');
    this.#byte('S');
    this.#text(name);
    this.#end();
  }

  /** Prepares a statement, whose text names the types of its parameters. */
  parse(name: string, text: string): void {
    this.#begin('P');
    this.#text(name);
    this.#text(text);
    this.#int16(0); // types given here
    this.#end();
  }

  /** Gives a prepared statement its values. */
  bind(name: string, values: readonly (string | null)[]): void {
    this.#begin('B');
    this.#text(''); // portal
    this.#text(name);
    this.#int16(0); // formats of values: text
    this.#int16(values.length);
    for (const value of values) this.#value(value);
    this.#int16(0); // formats of columns: text
    this.#end();
  }

  /** Runs what was bound last. */
  execute(): void {
    this.#begin('E');
    this.#text(''); // portal
    this.#int32(0); // as many rows as there are
    this.#end();
  }

  /** Ends what goes together. */
  sync(): void {
    this.#begin('S');
    this.#end();
  }

  /** What was written. */
  take(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #begin(type: string): void {
    this.#byte(type);
    this.#lengthAt = this.#length;
    this.#int32(0);
  }

  #end(): void {
    this.#bytes.writeInt32BE(this.#length - this.#lengthAt, this.#lengthAt);
  }

  #byte(character: string): void {
    this.#room(1);
    this.#bytes[this.#length++] = character.charCodeAt(0);
  }

  #int16(value: number): void {
    this.#room(2);
    this.#length = this.#bytes.writeInt16BE(value, this.#length);
  }

  #int32(value: number): void {
    this.#room(4);
    this.#length = this.#bytes.writeInt32BE(value, this.#length);
  }

  /** Ends with a byte of 0. */
  #text(text: string): void {
    this.#room(3 * text.length + 1); // the most that UTF-8 takes
    this.#length += this.#bytes.write(text, this.#length);
    this.#bytes[this.#length++] = 0;
  }

  #value(value: string | null): void {
    const at = this.#length;
    this.#int32(value === null ? -1 : 0);
    if (value === null) return;
    this.#room(3 * value.length);
    const length = this.#bytes.write(value, this.#length);
    this.#bytes.writeInt32BE(length, at);
    this.#length += length;
  }

  #room(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}
