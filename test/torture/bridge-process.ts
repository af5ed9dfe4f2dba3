import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { linkToParent, stopRequested, work } from './parent-link.ts';

/** What a bridge is told. */
export interface BridgeSettings {
  readonly host: string;
  /** Of a Unix socket, which is the same in every network namespace. */
  readonly socketPath: string;
}

/** Where it listens. */
export interface BridgeMessage {
  readonly port: number;
}

const parent = linkToParent<BridgeSettings>();
await work(() => bridge(parent.settings));

/** Leads connections out of the network namespace in which it runs. */
async function bridge({ host, socketPath }: BridgeSettings): Promise<void> {
  const listener = createServer({ noDelay: true }, (near) => join(near, connect(socketPath)));
  await new Promise<void>((resolve) => listener.listen(0, host, resolve));
  parent.send({ port: (listener.address() as AddressInfo).port } satisfies BridgeMessage);
  parent.ready();
  await stopRequested(parent.stopping);
}

function join(near: Socket, far: Socket): void {
  for (const [one, other] of [
    [near, far],
    [far, near],
  ] as const) {
    one.pipe(other);
    one.on('error', () => undefined);
    one.on('close', () => other.destroy());
  }
}
