/** `event`: something happened, many may care. `command`: do this, one receiver. `document`: data, such as a reply. */
export type MessageKind = 'event' | 'command' | 'document';

/** Header names to values. Has no prototype, so a header may have any name. */
export type Headers = Readonly<Record<string, string>>;

/** What is sent. Definitions make them; see `defineEvent` and `defineCommand`. */
export interface Message<Payload = unknown> {
  /** A UUIDv7: the message's identity everywhere, and what consumers deduplicate by. */
  readonly id: string;
  readonly kind: MessageKind;
  /** What kind of fact or order this is, such as `OrderPlaced`. */
  readonly type: string;
  readonly topic: string;
  /** Messages of one key keep their order. `null`: no order is promised. */
  readonly key: string | null;
  readonly headers: Headers;
  /** Whatever JSON can carry, or a `Uint8Array`, whose bytes are passed on as they are. */
  readonly payload: Payload;
  readonly occurredAt: Date;
  /** From then on no handler gets it: it goes to the dead letters of each group. Absent: it keeps for ever. */
  readonly expiresAt?: Date;
  /** No handler gets it before. It leaves the order of its key, and holds no other message up. Absent: at once. */
  readonly deliverAt?: Date;
  /** The same as a time from when it is written, by the database's clock. Received messages have `deliverAt` instead. */
  readonly delayMs?: number;
}

/** Says that something happened. Made by `defineEvent`, given to `publish`. */
export interface EventMessage<Payload = unknown> extends Message<Payload> {
  readonly kind: 'event';
}

/** Asks one receiver to do something. Made by `defineCommand`, given to `send`. */
export interface CommandMessage<Payload = unknown> extends Message<Payload> {
  readonly kind: 'command';
}

/** Carries data to one receiver, such as a reply. Made by `defineDocument`, given to `send`. */
export interface DocumentMessage<Payload = unknown> extends Message<Payload> {
  readonly kind: 'document';
}
