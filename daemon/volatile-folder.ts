import { statfsSync } from 'node:fs';

/** Of file systems that are memory and nothing else: tmpfs, ramfs (linux/magic.h). */
const memoryFileSystems = [0x0102_1994, 0x8584_58f6];

/** Whether a folder and all that is in it is gone when the machine stops. */
export const isInMemory = (folder: string): boolean => memoryFileSystems.includes(statfsSync(folder).type);
