/** The flash array as device time sees it; a geometry has these fields. */
export interface DeviceShape {
  readonly pageSizeBytes: number;
  readonly channelCount: number;
  readonly diesPerChannel: number;
  readonly planesPerDie: number;
  readonly pagesPerBlock: number;
}
