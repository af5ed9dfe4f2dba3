/** Which history the data of a server belong to. A standby that is promoted begins a new timeline. */
export interface Cluster {
  readonly systemIdentifier: string;
  readonly timeline: number;
}

export function isSameCluster(one: Cluster, other: Cluster): boolean {
  return one.systemIdentifier === other.systemIdentifier && one.timeline === other.timeline;
}

/** For people. */
export function showCluster({ systemIdentifier, timeline }: Cluster): string {
  return `cluster ${systemIdentifier}, timeline ${timeline}`;
}
