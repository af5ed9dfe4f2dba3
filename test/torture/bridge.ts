import type { BridgeMessage, BridgeSettings } from './bridge-process.ts';
import type { Cable } from './cable.ts';
import { Child } from './child.ts';

/** Leads connections from the far end of a cable to a Unix socket outside. */
export class Bridge implements AsyncDisposable {
  readonly #child: Child;
  readonly #host: string;
  readonly #port: number;

  private constructor(child: Child, host: string, port: number) {
    this.#child = child;
    this.#host = host;
    this.#port = port;
  }

  static async build(cable: Cable, socketPath: string): Promise<Bridge> {
    const { promise: port, resolve, reject } = Promise.withResolvers<number>();
    const child = new Child({
      name: 'bridge',
      program: 'bridge-process',
      settings: { host: cable.farAddress, socketPath } satisfies BridgeSettings,
      prefix: [...cable.enter, cable.far],
      onMessage: (message) => resolve((message as BridgeMessage).port),
      onCollapse: ({ lastWords }) => reject(new Error(`The bridge ended: ${lastWords}`)),
    });
    return new Bridge(child, cable.farAddress, await port);
  }

  /** The same by way of this bridge. */
  urlOf(url: string): string {
    const here = new URL(url);
    here.hostname = this.#host;
    here.port = String(this.#port);
    return here.href;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.kill();
  }
}
