/** A member that a process is to be. Options as of a consumer. */
export interface MemberRequest {
  readonly topic: string;
  /** Of the handlers' database. */
  readonly connectionString: string;
  readonly memberId: string;
  readonly leaseMs?: number;
  readonly staticLeaseMs?: number;
  readonly handlerIdleMs?: number;
  /**
   * Once it has written the effect of a count from this one on, it stays inside of the transaction until it is told to go on.
   * Only of the first such count.
   */
  readonly stayFrom?: number;
}

/** What a process has of a group. */
export interface MemberStatus {
  readonly owned: readonly { readonly partition: number; readonly epoch: string }[];
}

/** Records for one partition, appended some at a time in this order. */
export interface FeedRequest {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly FedRecord[];
  readonly batch: number;
}

/** What is told of a record; the rest is the same in all of them. */
export interface FedRecord {
  readonly messageId: string;
  readonly type: string;
  readonly key: string;
  readonly payload: string;
}

/** What a case asks of a process. */
export type Ask =
  | { readonly ask: 'join'; readonly member: MemberRequest }
  | { readonly ask: 'status' }
  | { readonly ask: 'go on' }
  | { readonly ask: 'feed'; readonly feed: FeedRequest }
  | { readonly ask: 'stop' };

/** A question on its way to the process. */
export type Question = Ask & { readonly id: number };

/** What a process says. */
export type Told =
  | { readonly tell: 'ready' }
  | { readonly tell: 'inside' }
  | { readonly tell: 'appended'; readonly count: number }
  | { readonly tell: 'done'; readonly id: number; readonly status?: MemberStatus }
  | { readonly tell: 'failed'; readonly id: number; readonly why: string };
