// Element types.

export const TYPE_F32: u32 = 1;
export const TYPE_F16: u32 = 2;
export const TYPE_BF16: u32 = 3;
export const TYPE_INT8: u32 = 4;
export const TYPE_INT4: u32 = 5;

@inline
export function isQuantised(type: u32): bool {
  return type >= TYPE_INT8;
}

@inline
export function floatBytes(type: u32): usize {
  return type == TYPE_F32 ? 4 : 2;
}

/** Bytes of scales and minima before the integers of a quantised row. */
@inline
export function integersOffset(elements: usize): usize {
  return ((elements + 63) >> 6) << 2;
}

export function rowBytes(type: u32, elements: usize): usize {
  if (!isQuantised(type)) return elements * floatBytes(type);
  return (integersOffset(elements) + (type == TYPE_INT8 ? elements : (elements + 1) >> 1) + 3) & ~3;
}

/** The first `count` < 4 elements of f32, the rest zero. Reads nothing beyond them. */
export function loadSome(at: usize, count: i32): v128 {
  let v = i32x4.replace_lane(i32x4.splat(0), 0, load<i32>(at));
  if (count > 1) v = i32x4.replace_lane(v, 1, load<i32>(at, 4));
  if (count > 2) v = i32x4.replace_lane(v, 2, load<i32>(at, 8));
  return v;
}

export function storeSome(at: usize, v: v128, count: i32): void {
  store<f32>(at, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(at, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(at, f32x4.extract_lane(v, 2), 8);
}
