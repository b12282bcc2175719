/**
 * What a UDP connection's packets are sent with, and which groups a listener has joined.
 *
 * Layer 2. Plain data: it crosses threads inside `ConnectionRules`. What an app may give is checked in layer 1.
 */

/** A multicast group, all of its senders or one alone (RFC 4607). */
export interface GroupJoin {
  readonly group: string;
  readonly source?: string | undefined;
}

export interface UdpOptions {
  /** TTL or hop limit; 0: 64, and 1 to groups, which then stay on the link. */
  readonly ttl: number;
  /** Differentiated services, six bits. */
  readonly dscp: number;
  /** Datagrams that are too long for the path go in pieces. False: they are refused. */
  readonly fragment: boolean;
  /** Listeners alone. */
  readonly join: readonly GroupJoin[];
}

export const defaultUdpOptions: UdpOptions = { ttl: 0, dscp: 0, fragment: true, join: [] };
