import type { IForbiddenRuleType } from 'dependency-cruiser';

/** A folder of `src/` and the floor it stands on. */
export interface Room {
  readonly name: string;
  readonly floor: number;
  /** Matches the files of the room, as paths from the root of the repository. */
  readonly pattern: string;
}

const ADAPTERS = ['postgres', 'memory', 'redis', 'kafka', 'nats', 'rabbitmq', 'bullmq'];

const FLOORS: Readonly<Record<number, readonly string[]>> = {
  0: ['base'],
  1: ['message', 'pgoutput'],
  2: ['postgres', 'telemetry'], // and the ports: the files that stand directly in broker/
  3: ['outbox', 'source', ...ADAPTERS.map((name) => `broker/${name}`)],
  4: ['relay', 'forwarder', 'consumer'],
  5: ['admin', 'config', 'testing', 'projection', 'saga', 'event-store'], // and each folder of integrations/
  6: ['daemon'],
  7: ['cli', 'console'],
};

const INTEGRATIONS = ['nestjs', 'fastify', 'express'];

/** The floor plan, as data. A file imports its own room and rooms on lower floors. */
const ROOMS: readonly Room[] = [
  ...Object.entries(FLOORS).flatMap(([floor, names]) => names.map((name) => folder(name, Number(floor)))),
  ...INTEGRATIONS.map((name) => folder(`integrations/${name}`, 5)),
  { name: 'broker', floor: 2, pattern: '^src/broker/[^/]+$' },
  // The package's front door re-exports what it likes; nothing inside imports it.
  { name: 'index.ts', floor: 8, pattern: '^src/index\\.ts$' },
];

function folder(name: string, floor: number): Room {
  return { name, floor, pattern: `^src/${name}/` };
}

/** The room that a file is in; `undefined` if the plan has none for it. */
export function roomOf(path: string): Room | undefined {
  return ROOMS.find((room) => new RegExp(room.pattern).test(path));
}

/** The plan as dependency-cruiser's rules. Each comment says why, and what to do instead. */
export function floorRules(): IForbiddenRuleType[] {
  return [
    ...ROOMS.flatMap((room) => [neverUp(room), neverSideways(room)]).filter((rule) => rule !== undefined),
    {
      name: 'no circle',
      severity: 'error',
      comment:
        'Files that import each other can only be understood and tested together. Move what both need into a third file.',
      from: { path: '^src/' },
      to: { circular: true },
    },
    {
      name: 'console knows the contract only',
      severity: 'error',
      comment: 'The page runs in a browser. Put the type it needs into src/admin/contract.ts.',
      from: { path: '^src/console/' },
      to: { path: '^src/', pathNot: ['^src/console/', '^src/admin/contract\\.ts$'] },
    },
    {
      name: 'nothing outside src',
      severity: 'error',
      comment: 'Only src is published. Move the code that is needed into src.',
      from: { path: '^src/' },
      to: { path: '^(test|examples|docs|dist)/' },
    },
    {
      name: 'imports are found',
      severity: 'error',
      comment: 'An import that leads nowhere cannot be checked. Relative imports end in .ts; packages are installed.',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ];
}

function neverUp(room: Room): IForbiddenRuleType | undefined {
  const above = ROOMS.filter((other) => other.floor > room.floor);
  return forbid(room, above, {
    name: `never up: ${room.name}`,
    comment: `${room.name} is on floor ${room.floor} and imports lower floors only. Hand the thing in as a parameter, or move what both need down.`,
  });
}

function neverSideways(room: Room): IForbiddenRuleType | undefined {
  const beside = ROOMS.filter((other) => other.floor === room.floor && other !== room);
  return forbid(room, beside, {
    name: `never sideways: ${room.name}`,
    comment: `Rooms on floor ${room.floor} do not know each other. Move what both need to a lower floor, or join them one floor up.`,
  });
}

function forbid(
  room: Room,
  rooms: readonly Room[],
  about: { readonly name: string; readonly comment: string },
): IForbiddenRuleType | undefined {
  if (rooms.length === 0) return undefined;
  return {
    ...about,
    severity: 'error',
    from: { path: room.pattern },
    to: { path: rooms.map(({ pattern }) => pattern) },
  };
}
