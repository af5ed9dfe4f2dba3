import { z } from 'zod';
import { passwordsIn, Secret } from '../base/secret.ts';

const DAY_MS = 24 * 3600 * 1000;

/** What the reference says of a setting, and what a wrong value is told was expected. */
type About = {
  readonly description: string;
  /** Where the type does not say it. */
  readonly expected?: string;
  /** Not shown in any message. */
  readonly secret?: true;
  /** The default value in words, where it is not one value. */
  readonly otherwise?: string;
};

const about = (meta: About): About => meta;

const name = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,49}$/)
  .meta({ expected: 'a name of 1 to 50 lower-case letters, digits and hyphens that begins with a letter' });

const databaseUrl = z
  .string()
  .regex(/^postgres(ql)?:\/\/\S+$/i)
  .refine((url) => URL.canParse(url.replace('@/', '@host/'))) // the host may be left out before a socket's folder
  .transform((url) => new Secret(url))
  .meta(
    about({
      description:
        'The database with the outbox. Not through a pooler in transaction mode. Best as a reference, `${SHOP_DATABASE_URL}`.',
      expected:
        'a URL such as postgresql://user@localhost:5432/shop, with special characters of a password in percent form (@ as %40)',
      secret: true,
    }),
  );

const text = (meta: About & { readonly expected: string }) => z.string().min(1).meta(meta);

/** The settings of one pipeline. */
export const pipelineSchema = z.strictObject({
  databaseUrl,
  schema: z
    .string()
    .regex(/^(?!pg_)[a-z_][a-z0-9_]{0,62}$/)
    .default('tailrace')
    .meta(
      about({
        description: 'The schema that `tailrace migrate` filled.',
        expected: '1 to 63 lower-case letters, digits and underscores, not starting with a digit or pg_',
      }),
    ),
  mode: z
    .enum(['wal', 'polling'])
    .default('wal')
    .meta(
      about({
        description:
          'Read the write-ahead log, and poll where that is not possible; or poll the outbox always. What `tailrace relay switch` asks for comes before it.',
      }),
    ),
  slot: z
    .string()
    .regex(/^[a-z0-9_]{1,63}$/)
    .optional()
    .meta(
      about({
        description: 'The name of the replication slot.',
        expected: '1 to 63 lower-case letters, digits and underscores',
        otherwise: "the schema and the database's OID",
      }),
    ),
  failoverSlot: z
    .boolean()
    .default(true)
    .meta(
      about({ description: 'Whether standbys keep a copy of the slot, so that it outlives a failover (Postgres 17).' }),
    ),
  walBudgetBytes: z
    .int()
    .min(1)
    .optional()
    .meta(
      about({
        description: 'How much WAL the slot may hold back, in bytes. Warned of at 50 and 80 %, with a forecast.',
        otherwise: "the server's `max_slot_wal_keep_size`, if it sets one",
      }),
    ),
  onWalBudget: z
    .enum(['warn', 'drop-slot'])
    .default('warn')
    .meta(
      about({
        description:
          'What to do when that is used up: say so; or drop the slot, poll, and make a new one. Neither loses a message.',
      }),
    ),
  leaseMs: z
    .int()
    .min(1_000)
    .max(DAY_MS)
    .default(10_000)
    .meta(about({ description: 'How long a relay that says nothing keeps a standby waiting, in milliseconds.' })),
  log: z
    .strictObject({
      partitions: z
        .int()
        .min(1)
        .max(10_000)
        .default(8)
        .meta(about({ description: 'How many partitions a topic gets that the relay creates.' })),
      createTopics: z
        .boolean()
        .default(true)
        .meta(about({ description: 'Whether the relay creates a topic with its first message.' })),
    })
    .prefault({}),
  maintenance: z
    .strictObject({
      enabled: z
        .boolean()
        .default(true)
        .meta(
          about({
            description:
              'Whether the relay that leads removes what retention does not keep, and old partitions of the outbox where its role owns them. If not: `tailrace maintain`.',
          }),
        ),
      keepOutboxMs: z
        .int()
        .min(0)
        .max(14 * DAY_MS)
        .default(DAY_MS)
        .meta(
          about({
            description: 'How long a partition of the outbox stays once it was written full, in milliseconds.',
          }),
        ),
    })
    .prefault({}),
});

const tlsSchema = z.strictObject({
  certFile: text({
    description: 'The certificate of the HTTP server, with its chain: a file in PEM form.',
    expected: 'a path',
    otherwise: 'no TLS',
  }),
  keyFile: text({
    description: 'The key of that certificate: a file in PEM form.',
    expected: 'a path',
    otherwise: 'no TLS',
  }),
});

const httpSchema = z.strictObject({
  port: z
    .int()
    .min(0)
    .max(65_535)
    .optional()
    .meta(
      about({
        description:
          'Where `/livez`, `/readyz`, `/metrics` and `/status` are served. 0 takes a free port, and logs it.',
        otherwise: 'no HTTP',
      }),
    ),
  host: text({
    description: 'The address to listen on. Off loopback it takes a token, and TLS or a proxy that ends it.',
    expected: 'an address',
  }).default('127.0.0.1'),
  token: z
    .string()
    .min(16)
    .transform((token) => new Secret(token))
    .optional()
    .meta(
      about({
        description: 'What requests must carry: `Authorization: Bearer …`. Best as a reference, `${ADMIN_TOKEN}`.',
        expected: 'at least 16 characters',
        secret: true,
        otherwise: 'none is asked for',
      }),
    ),
  allowedHosts: z
    .array(z.string().min(1))
    .default([])
    .meta(
      about({
        description: 'Names that requests may give as `Host`, besides `host`, `localhost`, `127.0.0.1` and `[::1]`.',
      }),
    ),
  behindTlsProxy: z
    .boolean()
    .default(false)
    .meta(about({ description: 'Declares that only a proxy that ends TLS can reach the port.' })),
  tls: tlsSchema.optional(),
});

const logSchema = z.strictObject({
  level: z
    .enum(['debug', 'info', 'warn', 'error'])
    .default('info')
    .meta(about({ description: 'The least that is logged.' })),
  format: z
    .enum(['text', 'json'])
    .default('text')
    .meta(about({ description: 'Lines for people, or lines of JSON. Either goes to standard error.' })),
});

/** The configuration of the command line: the one place that says names, types, defaults and descriptions. */
export const configSchema = z.strictObject({
  pipelines: z.record(name, pipelineSchema),
  http: httpSchema.prefault({}),
  log: logSchema.prefault({}),
  shutdownTimeoutMs: z
    .int()
    .min(0)
    .max(DAY_MS)
    .default(30_000)
    .meta(
      about({
        description:
          'How long the end may take once it is asked for, in milliseconds. After it, the process ends anyhow.',
      }),
    ),
});

/** A complete configuration. */
export type Config = z.output<typeof configSchema>;

/** One outbox, its relay and its log. */
export type PipelineConfig = Config['pipelines'][string];

/** Every text of a configuration that must not be shown. */
export function secretsOf({ pipelines, http }: Config): string[] {
  const urls = Object.values(pipelines).map((pipeline) => pipeline.databaseUrl.reveal());
  const token = http.token === undefined ? [] : [http.token.reveal()];
  return [...urls.flatMap((url) => [url, ...passwordsIn(url)]), ...token];
}
