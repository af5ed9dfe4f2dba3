import { defineEvent } from '../../message/definition.ts';

/** What the demo's order service tells of an order. */
export interface PlacedOrder {
  readonly orderId: string;
  readonly customerId: string;
  /** Counts the customer's orders, without a gap, in the order of their commits: taken under the lock of the customer's row. */
  readonly n: number;
  readonly totalCents: number;
}

/** A customer has placed an order. Events of one customer keep their order. */
export const OrderPlaced = defineEvent<PlacedOrder>('OrderPlaced', {
  topic: 'orders',
  key: (order) => order.customerId,
});
