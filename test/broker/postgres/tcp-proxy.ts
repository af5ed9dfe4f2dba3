import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** A way to the server that breaks on request. Connections are told apart by their application name. */
export interface TcpProxy extends AsyncDisposable {
  /** Like the connection string of the server, by way of the proxy. */
  readonly connectionString: string;
  /** Connections of this application are cut off as soon as they say their name, from now on. */
  refuse(applicationName: string): void;
  /** Takes the refusal back. */
  allow(applicationName: string): void;
  /**
   * From now on nothing passes to or from this application any more, on connections that it has and on new ones, and none of
   * them ends: what happens when a cable is pulled.
   */
  hang(applicationName: string): void;
  /** Lets new connections of this application through again; those that hung are cut. */
  heal(applicationName: string): void;
  /** The next answer to this application is thrown away and its connection cut. Resolves once that has happened. */
  loseNextAnswer(applicationName: string): Promise<void>;
}

interface Tunnel {
  applicationName: string;
  readonly client: Socket;
  readonly server: Socket;
}

export async function createTcpProxy(connectionString: string): Promise<TcpProxy> {
  const target = new URL(connectionString);
  const refused = new Set<string>();
  const hung = new Set<string>();
  const losing = new Map<string, () => void>();
  const tunnels = new Set<Tunnel>();

  const cut = ({ client, server }: Tunnel): void => {
    client.destroy();
    server.destroy();
  };
  const onStartup = (tunnel: Tunnel, chunk: Buffer): void => {
    tunnel.applicationName = applicationNameIn(chunk);
    if (refused.has(tunnel.applicationName)) cut(tunnel);
  };
  const onAnswer = (tunnel: Tunnel, chunk: Buffer): void => {
    if (hung.has(tunnel.applicationName)) return;
    const lost = losing.get(tunnel.applicationName);
    if (lost === undefined) {
      tunnel.client.write(chunk);
      return;
    }
    losing.delete(tunnel.applicationName);
    cut(tunnel);
    lost();
  };

  const listener = createServer((client) => {
    const server = connect(Number(target.port), target.hostname);
    const tunnel = { applicationName: '', client, server };
    tunnels.add(tunnel);
    client.once('data', (chunk) => onStartup(tunnel, chunk));
    client.on('data', (chunk) => {
      if (!hung.has(tunnel.applicationName)) server.write(chunk);
    });
    server.on('data', (chunk) => onAnswer(tunnel, chunk));
    for (const socket of [client, server]) {
      socket.on('error', () => undefined);
      socket.on('close', () => {
        if (hung.has(tunnel.applicationName)) return;
        cut(tunnel);
        tunnels.delete(tunnel);
      });
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));

  const url = new URL(connectionString);
  url.hostname = '127.0.0.1';
  url.port = String((listener.address() as AddressInfo).port);
  return {
    connectionString: url.href,
    refuse: (applicationName) => refused.add(applicationName),
    allow: (applicationName) => refused.delete(applicationName),
    hang: (applicationName) => hung.add(applicationName),
    heal: (applicationName) => {
      hung.delete(applicationName);
      for (const tunnel of tunnels) if (tunnel.applicationName === applicationName) cut(tunnel);
    },
    loseNextAnswer: (applicationName) => new Promise((resolve) => losing.set(applicationName, resolve)),
    [Symbol.asyncDispose]: async () => {
      tunnels.forEach(cut);
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

/** From a startup message: names and values, each with a zero byte behind it. */
function applicationNameIn(startup: Buffer): string {
  const words = startup.subarray(8).toString('latin1').split('\0');
  return words[words.indexOf('application_name') + 1] ?? '';
}
