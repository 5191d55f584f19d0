import { criticalWarningBits } from '../../../spec/async-events.ts';
import type { ControllerFeatures, DriveStatus } from '../contract.ts';

/**
 * The critical warnings of the SMART log, as one controller sees them: those of the drive, and that the temperature is
 * beyond the thresholds that its host has set.
 */
export function criticalWarning(
  health: ReturnType<DriveStatus['health']>,
  { temperatureThresholds }: Pick<ControllerFeatures, 'temperatureThresholds'>,
): number {
  const { criticalWarning: warnings = 0, temperature = 0 } = health;
  const isBeyond = temperature >= temperatureThresholds.over || temperature <= temperatureThresholds.under;
  return warnings | (isBeyond ? 1 << criticalWarningBits.temperature.shift : 0);
}
