/**
 * When what a flash page holds is compared with its checksum.
 *
 * - `first-use`: once after a program, a start, or a load into a cache; later uses trust it, the scrub looks again. Garbage
 *   collection always compares.
 * - `always`: at every use. A cell that changes under the running drive is an error, never a wrong number. Copies in the
 *   frame cache are no cells: they were compared when they were loaded.
 */
export const verifyPolicies = ['first-use', 'always'] as const;
export type VerifyPolicy = (typeof verifyPolicies)[number];
