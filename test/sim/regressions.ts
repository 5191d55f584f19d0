/**
 * Histories that once failed, kept as seeds: each is played by the tests up to the power cut after which it failed. What a
 * seed plays changes with the drive and with the simulator, so each says what it found too; a bug whose history is gone has
 * a test of its own where it was.
 */
export interface Regression {
  readonly seed: bigint;
  readonly cuts: number;
  readonly found: string;
}

export const regressions: readonly Regression[] = [
  {
    seed: 15n,
    cuts: 8,
    found: 'KV pages whose reclaim was undone, beside those in their place, were more than the drive opened',
  },
  { seed: 92n, cuts: 21, found: 'a Read with FUA returned a block that was not durable' },
  { seed: 1239n, cuts: 5, found: 'pages of an append that failed on a full disk were taken for tokens appended later' },
  {
    seed: 200_008n,
    cuts: 49,
    found: 'a drive that ran out of good blocks while it opened could not be opened to be read',
  },
  {
    seed: 3_000_212n,
    cuts: 7,
    found: 'a file of the log with blocks that Format NVM had erased was there again after a power cut',
  },
  {
    seed: 0x47a96e409a79d41d2d46baf533a4fcebbc271ffan,
    cuts: 51,
    found: 'blocks that Format NVM had to erase stayed beneath a page of the other namespace that a power cut had torn',
  },
];
