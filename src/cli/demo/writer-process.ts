import { closeClient, openClient } from '../../postgres/connection.ts';
import { createOutbox } from '../../outbox/outbox.ts';
import { AttemptLog, nowMs } from './attempt-log.ts';
import { placeOrder, type WantedOrder } from './order-service.ts';
import { Pace } from './pace.ts';
import { linkToParent, work } from './parent-link.ts';
import { pickCustomer, pickProducts } from './shop-tables.ts';

/** What a writer is told. */
export interface WriterSettings {
  readonly databaseUrl: string;
  readonly name: string;
  readonly ordersPerSecond: number;
}

const parent = linkToParent<WriterSettings>();
await work(() => placeOrders(parent.settings, parent.stopping));

/** Places one order after the other until it is told to stop. */
async function placeOrders(
  { databaseUrl, name, ordersPerSecond }: WriterSettings,
  stopping: AbortSignal,
): Promise<void> {
  const client = await openClient({ connectionString: databaseUrl, applicationName: `demo ${name}` });
  const attempts = await AttemptLog.open(databaseUrl, name);
  const outbox = createOutbox();
  const pace = new Pace(ordersPerSecond, performance.now());
  parent.ready();
  while (!stopping.aborted) {
    const ended = await placeOrder(client, outbox, wantedOrder());
    attempts.add(ended, nowMs());
    await pace.wait(stopping);
  }
  await attempts.close();
  await closeClient(client);
}

/** In a hundred orders, 5 are refused at the last moment and 3 are placed at the second thought. */
function wantedOrder(): WantedOrder {
  const fate = Math.random();
  const course = fate < 0.05 ? 'refuse' : fate < 0.08 ? 'second thought' : 'accept';
  return { customerId: pickCustomer(Math.random()), productIds: pickProducts(Math.random), course };
}
