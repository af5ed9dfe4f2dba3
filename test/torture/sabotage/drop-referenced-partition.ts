import pg from 'pg';

/** Finds no entry of the log that names a row of a partition: so nothing is packed before it leaves. */
export function dropReferencedPartition(text: string): string {
  return text.replaceAll(/exists \(select from unnest\(e\.ids\) id where id >= \$1/g, 'false and $&');
}

/** Lets all clients of this process send what `rewrite` answers in place of a statement. Returns what ends that. */
export function rewriteStatements(rewrite: (text: string) => string): () => void {
  const query: unknown = Reflect.get(pg.Client.prototype, 'query');
  if (typeof query !== 'function') throw new TypeError('Clients are asked in another way now.');
  const rewritten = function (this: pg.Client, asked: unknown, ...rest: readonly unknown[]): unknown {
    return Reflect.apply(query, this, [typeof asked === 'string' ? rewrite(asked) : asked, ...rest]) as unknown;
  };
  Reflect.set(pg.Client.prototype, 'query', rewritten);
  return () => void Reflect.set(pg.Client.prototype, 'query', query);
}
