import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** How bytes travel, in both directions. */
export interface Weather {
  /** Nothing comes through, and nobody is told. */
  readonly hangs: boolean;
  /** New connections are cut off. */
  readonly refuses: boolean;
  /** How late everything comes. */
  readonly delayMs: number;
  /** Everything comes in pieces of so many bytes; 0 for as it was sent. */
  readonly sliceBytes: number;
}

const FAIR: Weather = { hangs: false, refuses: false, delayMs: 0, sliceBytes: 0 };

interface Tunnel {
  readonly client: Socket;
  readonly server: Socket;
}

/** A way to the server whose weather can be changed. */
export class Network implements AsyncDisposable {
  readonly #target: URL;
  readonly #listener: Server;
  readonly #socketPath: string;
  readonly #socketListener: Server;
  readonly #tunnels = new Set<Tunnel>();
  #weather = FAIR;

  private constructor(target: URL, socketPath: string) {
    this.#target = target;
    this.#socketPath = socketPath;
    this.#listener = createServer((client) => this.#open(client));
    this.#socketListener = createServer((client) => this.#open(client));
  }

  /**
   * @param url of the server.
   * @param socketPath where there is to be a Unix socket as another entrance.
   */
  static async open(url: string, socketPath: string): Promise<Network> {
    const network = new Network(new URL(url), socketPath);
    await new Promise<void>((resolve) => network.#listener.listen(0, '127.0.0.1', resolve));
    await new Promise<void>((resolve) => network.#socketListener.listen(socketPath, resolve));
    return network;
  }

  get socketPath(): string {
    return this.#socketPath;
  }

  /** Of the server, by this way. */
  get url(): string {
    const url = new URL(this.#target);
    url.port = String((this.#listener.address() as AddressInfo).port);
    return url.href;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#tunnels.size;
  }

  /** Changes the weather; what is not named is fair. Bytes that were held back go on. */
  change(weather: Partial<Weather> = {}): void {
    this.#weather = { ...FAIR, ...weather };
    for (const { client, server } of this.#tunnels) {
      for (const socket of [client, server]) {
        if (this.#weather.hangs) socket.pause();
        else socket.resume();
      }
    }
  }

  /** Ends every connection with RST. */
  reset(): void {
    for (const { client, server } of this.#tunnels) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  /** The server's side of every connection says that it has finished; the client's side may go on speaking to nobody. */
  halfClose(): void {
    for (const { client } of this.#tunnels) client.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.reset();
    await new Promise((resolve) => this.#listener.close(resolve));
    await new Promise((resolve) => this.#socketListener.close(resolve));
  }

  #open(client: Socket): void {
    if (this.#weather.refuses) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ port: Number(this.#target.port), host: this.#target.hostname, noDelay: true });
    client.setNoDelay(true);
    const tunnel = { client, server };
    this.#tunnels.add(tunnel);
    this.#forward(client, server);
    this.#forward(server, client);
    for (const socket of [client, server]) {
      socket.on('error', () => undefined);
      socket.on('close', () => {
        client.destroy();
        server.destroy();
        this.#tunnels.delete(tunnel);
      });
      if (this.#weather.hangs) socket.pause();
    }
  }

  #forward(from: Socket, to: Socket): void {
    const late: { readonly chunk: Buffer; readonly dueMs: number }[] = [];
    const sendDue = (): void => {
      for (let [first] = late; first !== undefined && first.dueMs <= performance.now(); [first] = late) {
        late.shift();
        this.#send(from, to, first.chunk);
      }
      if (late[0] !== undefined) setTimeout(sendDue, Math.max(1, late[0].dueMs - performance.now()));
    };
    from.on('data', (chunk) => {
      // What comes behind something late is late as well: bytes do not overtake each other.
      const dueMs = Math.max(performance.now() + this.#weather.delayMs, late.at(-1)?.dueMs ?? 0);
      if (late.push({ chunk, dueMs }) === 1) sendDue();
    });
    to.on('drain', () => {
      if (!this.#weather.hangs) from.resume();
    });
  }

  #send(from: Socket, to: Socket, chunk: Buffer): void {
    const { sliceBytes } = this.#weather;
    const step = sliceBytes > 0 ? sliceBytes : chunk.length;
    let hasRoom = true;
    for (let start = 0; start < chunk.length; start += step) hasRoom = to.write(chunk.subarray(start, start + step));
    if (!hasRoom) from.pause();
  }
}
